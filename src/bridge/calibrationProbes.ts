/** The plans that a calibration runs; where they do not fit in what is free, the change to the calibration that makes them. */
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { FpdtError } from '../spec/errors.js';
import type { ClusterSpec } from '../spec/types.js';
import { type ProbeInput, probePlans, probesFit } from '../strategy/probePlans.js';

export interface CalibrationInput extends Omit<ProbeInput, 'cluster'> {
  readonly ranks: number;
  /** A name of the catalog; default: cpu. Memory and what fills it are the catalog's but for the CPU's. */
  readonly gpu?: string | undefined;
  /** Where a run may keep a file. */
  readonly diskFolder?: string | undefined;
  /** Limit for everything, Python's imports included. */
  readonly seconds: number;
}

/** Of chunks, from one look to the next. */
const SHORTER = 4;
const MOST_LOOKS = 6;
/** Shorter ones measure launches and nothing else. */
const LEAST_TOKENS = 64;

type ClusterOf = (input: CalibrationInput) => ClusterSpec;

/** `clusterOf` says what is free for each rank. Throws `does-not-fit` with a hint that is about the calibration, not about the probes. */
export async function calibrationProbes(input: CalibrationInput, clusterOf: ClusterOf): Promise<readonly ExecutionPlan[]> {
  try {
    return await probePlans({ ...input, cluster: clusterOf(input) });
  } catch (error) {
    if (!(error instanceof FpdtError) || error.code !== 'does-not-fit') throw error;
    throw new FpdtError(`what is measured with does not fit: ${error.message}`, {
      code: error.code,
      hint: changeThatFits(input, clusterOf) ?? 'free memory, or measure a model with smaller layers or vocabulary with --model',
      details: { pools: error.details?.['pools'] },
      cause: error,
    });
  }
}

/** Shorter chunks of as many ranks, else fewer ranks, which have more memory each, else both. */
function changeThatFits(input: CalibrationInput, clusterOf: ClusterOf): string | undefined {
  const looks = Array.from({ length: MOST_LOOKS }, (_, i) => i + 1);
  const shorter = looks
    .map((look) => Math.floor(input.chunkTokens / SHORTER ** look))
    .filter((tokens) => tokens >= Math.max(input.ranks, LEAST_TOKENS));
  const fewer = looks.map((look) => Math.floor(input.ranks / 2 ** look)).filter((ranks) => ranks >= 1);
  const changes = [
    ...shorter.map((chunkTokens) => ({ chunkTokens })),
    ...fewer.map((ranks) => ({ ranks })),
    ...fewer.flatMap((ranks) => shorter.slice(-1).map((chunkTokens) => ({ ranks, chunkTokens }))),
  ];
  const found = changes.find((change) => fits({ ...input, ...change }, clusterOf));
  return found === undefined ? undefined : textOf(found);
}

/** Not where a change is refused, as a number of ranks that the heads do not divide. */
function fits(input: CalibrationInput, clusterOf: ClusterOf): boolean {
  try {
    return probesFit({ ...input, cluster: clusterOf(input) });
  } catch (error) {
    if (error instanceof FpdtError) return false;
    throw error;
  }
}

function textOf({ ranks, chunkTokens }: Partial<CalibrationInput>): string {
  const options = [
    ...(ranks === undefined ? [] : [`--ranks ${ranks}`]),
    ...(chunkTokens === undefined ? [] : [`--chunk-tokens ${chunkTokens}`]),
  ];
  return `${options.join(' with ')} fits`;
}
