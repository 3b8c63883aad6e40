/** The longest sequence that fits. */
import { parseSpecs } from '../../catalog/specs.js';
import type { ExecutionPlan } from '../../plan/executionPlan.js';
import { FpdtError } from '../../spec/errors.js';
import type { RunInput } from '../../spec/runInput.js';
import { padSeqLen, withChunks } from '../../spec/sizes.js';
import { memoryEstimator, type Evaluator } from '../evaluator.js';
import { type PlanInput, planFitting } from '../planRun.js';
import { type BuildInput, settingOf } from '../setting.js';
import { edge, remembered } from './edge.js';
import { type Bound, type Fitting, hopeless, type Probe, probe, refused } from './probe.js';

/** A request without its length. */
export interface MaxSeqLenInput extends Omit<PlanInput, 'run'> {
  readonly run?: Omit<RunInput, 'seqLen'> | undefined;
}

export interface LongestSeqLen {
  readonly seqLen: number;
  /** Lengths that were looked at are multiples of this. */
  readonly granularityTokens: number;
  /** `seqLen + granularityTokens`, and what keeps it from a plan. */
  readonly nextSeqLen: number;
  readonly bound: Bound;
}

export interface MaxSeqLen extends LongestSeqLen {
  readonly kind: 'maxSeqLen';
  readonly plan: ExecutionPlan;
}

/** No longer sequence is looked at. */
const MOST_TOKENS = 2 ** 36;
/** Looked at first; longer ones by doubling, shorter ones where it does not fit. */
const FIRST_TOKENS = 4096;
/** A multiple of so many tokens a rank is divided without padding by every power of two of chunks that the policies try. */
const MOST_LOCAL_GRANULARITY = 512;
/** A length is found to a part in so many, and more finely wherever the granularity above allows. */
const PRECISION = 64;
/** Longer lengths looked at beyond the answer, evenly up to twice of it. */
const NUM_BEYOND = 8;

/**
 * Plans the longest sequence that fits, and says what keeps a longer one from it. Throws an FpdtError where no length fits.
 *
 * The answer fits, and the next multiple of the granularity does not. Fitting need not change only once with the length: chunk counts
 * double from one that hangs on it. So eight longer lengths up to twice the answer are looked at as well, and none of them fits; one
 * that lies between two of them alone may.
 */
export async function maxSeqLen(input: MaxSeqLenInput): Promise<MaxSeqLen> {
  const asked = withoutLength(input);
  const evaluate = memoryEstimator();
  const found = longestSeqLen(asked, evaluate);
  if (found === undefined) throw nothingFits(asked, evaluate);
  const { fitting, ...longest } = found;
  return { kind: 'maxSeqLen', ...longest, plan: planFitting(fitting.input, fitting.found.strategy) };
}

/** Without a plan of it; undefined where no length fits. The length of what is asked is not looked at. */
export function longestSeqLen(asked: BuildInput, evaluate: Evaluator): (LongestSeqLen & { readonly fitting: Fitting }) | undefined {
  if (!mayHaveRoom(asked, evaluate)) return undefined;
  const look = remembered((seqLen: number) => lookAt(asked, seqLen, evaluate));
  const some = someThatFits(asked, look);
  if (some === undefined) return undefined;
  const start = doubled(some, (length) => look(length).fits);
  const granularityTokens = granularityAt(start, asked);
  const fits = (units: number): boolean => look(units * granularityTokens).fits;
  let units = start / granularityTokens;
  for (let next: number | undefined = units; next !== undefined; next = beyond(units, fits)) {
    const fit = doubled(next, fits);
    units = edge(fit, 2 * fit, fits);
  }
  const [seqLen, nextSeqLen] = [units * granularityTokens, (units + 1) * granularityTokens];
  const [fitting, longer] = [look(seqLen), look(nextSeqLen)];
  if (!fitting.fits || longer.fits) throw new RangeError(`the search for the longest sequence ended beside its edge, at ${seqLen}`);
  return { seqLen, granularityTokens, nextSeqLen, bound: longer.bound, fitting };
}

/** False where not even the shortest sequence has room beside the states of the model; a longer one has no more. */
function mayHaveRoom(asked: BuildInput, evaluate: Evaluator): boolean {
  try {
    return !evaluate.isHopeless(settingOf(withSeqLen(asked, baseTokens(asked))));
  } catch (error) {
    // A length that is refused says nothing of longer ones.
    refused(error);
    return true;
  }
}

function withoutLength(input: MaxSeqLenInput): BuildInput {
  if (Object.hasOwn(input.run ?? {}, 'seqLen')) {
    throw new FpdtError('run.seqLen is given, but it is what is looked for', { code: 'unknown-key', hint: 'leave run.seqLen out' });
  }
  const { deepspeed, ...specs } = parseSpecs({ ...input, run: { ...input.run, seqLen: MOST_TOKENS } });
  return { ...specs, deepspeed: deepspeed.config };
}

function lookAt(asked: BuildInput, seqLen: number, evaluate: Evaluator): Probe {
  if (seqLen <= MOST_TOKENS) return probe(withSeqLen(asked, seqLen), evaluate);
  return refused(new FpdtError(`sequences of more than ${MOST_TOKENS} tokens are not looked at`, { code: 'too-long' }));
}

function withSeqLen(asked: BuildInput, seqLen: number): BuildInput {
  return { ...asked, run: withChunks({ ...asked.run, seqLen }, asked.run.numChunks ?? 1) };
}

/** The smallest length that no padding is needed for: a tile for each rank, or for each rank and chunk where chunks are counted. */
function baseTokens({ run }: BuildInput): number {
  return padSeqLen({ ...run, seqLen: 1 }, run.numChunks ?? 1);
}

/** Shorter lengths first: a longer one fits only where a forced tile refuses the short ones. */
function someThatFits(asked: BuildInput, look: (seqLen: number) => Probe): number | undefined {
  const first = firstLength(asked);
  for (let seqLen = first; seqLen >= baseTokens(asked); seqLen /= 2) if (look(seqLen).fits) return seqLen;
  for (let seqLen = first; seqLen <= MOST_TOKENS && isRefused(look(seqLen)); seqLen *= 2) if (look(2 * seqLen).fits) return 2 * seqLen;
  return undefined;
}

function firstLength(asked: BuildInput): number {
  let length = baseTokens(asked);
  while (length < FIRST_TOKENS) length *= 2;
  return length;
}

function isRefused(looked: Probe): boolean {
  return !looked.fits && looked.memory === undefined;
}

function granularityAt(seqLen: number, asked: BuildInput): number {
  const most = Math.min(seqLen / PRECISION, asked.run.sequenceParallelSize * MOST_LOCAL_GRANULARITY);
  let granularity = baseTokens(asked);
  while (2 * granularity <= most) granularity *= 2;
  return granularity;
}

/** A number that fits, doubled while it does. */
function doubled(start: number, fits: (value: number) => boolean): number {
  let fit = start;
  while (fits(2 * fit)) fit *= 2;
  return fit;
}

/** The largest of some numbers above an edge that fits, if any does. */
function beyond(units: number, fits: (units: number) => boolean): number | undefined {
  const steps = Array.from({ length: NUM_BEYOND }, (_, i) => units + Math.ceil(((NUM_BEYOND - i) * units) / NUM_BEYOND));
  return steps.find(fits);
}

/** As told at the shortest length for which memory is what is missing, if there is one. */
function nothingFits(asked: BuildInput, evaluate: Evaluator): FpdtError {
  const lengths = [baseTokens(asked), firstLength(asked)].map((seqLen) => ({ seqLen, looked: lookAt(asked, seqLen, evaluate) }));
  const easiest = lengths.find(({ looked }) => !isRefused(looked)) ?? lengths.at(-1);
  return hopeless('no length fits', withSeqLen(asked, easiest?.seqLen ?? baseTokens(asked)));
}
