/** The fewest GPUs that a run fits on. */
import { specsByCluster } from '../../catalog/specs.js';
import type { ExecutionPlan } from '../../plan/executionPlan.js';
import { FpdtError } from '../../spec/errors.js';
import { readJsonObject } from '../../spec/parseJson.js';
import { memoryEstimator, type Evaluator } from '../evaluator.js';
import { type PlanInput, planFitting } from '../planRun.js';
import type { BuildInput } from '../setting.js';
import { edge, remembered } from './edge.js';
import { type Bound, type Fitting, hopeless, type Probe, probe, refused } from './probe.js';

/** The cluster's number of ranks is not looked at: of its short form `gpus` may be left out. */
export interface MinGpusInput extends PlanInput {
  /** No more are tried; 1024 when left out. */
  readonly maxGpus?: number | undefined;
}

/** A smaller number of GPUs, and what keeps it from a plan. */
export interface TooFewGpus {
  readonly gpus: number;
  readonly sequenceParallelSize: number;
  readonly dataParallelSize: number;
  readonly bound: Bound;
}

export interface FewestGpus {
  readonly gpus: number;
  /** Of every sequence parallel size that fewer GPUs have, the most of them. */
  readonly fewer: readonly TooFewGpus[];
}

export interface MinGpus extends FewestGpus {
  readonly kind: 'minGpus';
  readonly plan: ExecutionPlan;
}

const MOST_GPUS = 1024;
const MOST_LOOKED_AT = 65_536;

/** A number of ranks that the request allows, by its heads and its ds_config. */
interface Count {
  readonly gpus: number;
  readonly input: BuildInput;
}

/** Asked more than once for a number. */
type Parse = (gpus: number) => Count | FpdtError;

/**
 * Plans the run on the fewest GPUs that it fits on, and says what keeps it from fewer. Throws an FpdtError where no number up to
 * `maxGpus` is enough, or is one that heads, parallel sizes and ds_config allow.
 *
 * Fitting changes more than once with the number: 8 ranks may share a sequence that 9 cannot. The answer is the least all the same: every
 * smaller number that is allowed was looked at, or one with as many ranks to a sequence and to a node and more replicas, which never
 * need more memory.
 */
export async function minGpus({ maxGpus, ...input }: MinGpusInput): Promise<MinGpus> {
  const most = maxGpus ?? MOST_GPUS;
  if (!Number.isSafeInteger(most) || most < 1) {
    throw new FpdtError(`maxGpus: expected a whole number of at least 1, found ${most}`, { code: 'invalid-value', hint: 'give 1024, say' });
  }
  if (most > MOST_LOOKED_AT) {
    throw new FpdtError(`maxGpus: expected a whole number of at most ${MOST_LOOKED_AT}, since every number is looked at, found ${most}`, {
      code: 'invalid-value',
      hint: `give ${MOST_LOOKED_AT} or less`,
    });
  }
  const parse = remembered(parserOf(input));
  const evaluate = memoryEstimator();
  const found = fewestGpus(parse, most, evaluate);
  if (found === undefined) throw nothingFits(parse, most);
  const { fitting, ...fewest } = found;
  return { kind: 'minGpus', ...fewest, plan: planFitting(fitting.input, fitting.found.strategy) };
}

/** Without a plan of it; undefined where no number up to `most` fits. */
export function fewestGpus(parse: Parse, most: number, evaluate: Evaluator): (FewestGpus & { readonly fitting: Fitting }) | undefined {
  const look = remembered((gpus: number) => lookAt(parse(gpus), evaluate));
  let best = powersOfTwo(most).find((gpus) => look(gpus).fits);
  for (const alike of classesOf(countsBelow(best ?? most + 1, parse))) {
    const numbers = alike.map(({ gpus }) => gpus).filter((gpus) => best === undefined || gpus < best);
    const fits = (index: number): boolean => look(numbers[index] as number).fits;
    const last = numbers.length - 1;
    if (last >= 0 && fits(last)) best = numbers[edge(last, -1, fits)];
  }
  if (best === undefined) return undefined;
  const fitting = look(best);
  if (!fitting.fits) throw new RangeError(`the search for the fewest GPUs ended at ${best}, which do not fit`);
  return { gpus: best, fewer: tooFew(countsBelow(best, parse), look), fitting };
}

function parserOf({ cluster, ...input }: PlanInput): Parse {
  const given = readJsonObject(cluster, 'cluster');
  const specsOn = specsByCluster(input);
  return (gpus) => {
    try {
      const { deepspeed, ...specs } = specsOn(onRanks(given, gpus));
      return { gpus, input: { ...specs, deepspeed: deepspeed.config } };
    } catch (error) {
      return refused(error).error;
    }
  };
}

/** A full ClusterSpec, or the short form that names a catalog entry. */
function onRanks(cluster: ReturnType<typeof readJsonObject>, gpus: number): ReturnType<typeof readJsonObject> {
  return 'kind' in cluster ? { ...cluster, numRanks: gpus } : { ...cluster, gpus };
}

function lookAt(count: Count | FpdtError, evaluate: Evaluator): Probe {
  return count instanceof FpdtError ? refused(count) : probe(count.input, evaluate);
}

function powersOfTwo(most: number): readonly number[] {
  return Array.from({ length: Math.floor(Math.log2(most)) + 1 }, (_, i) => 2 ** i);
}

function countsBelow(end: number, parse: Parse): readonly Count[] {
  const counts = Array.from({ length: end - 1 }, (_, i) => parse(i + 1));
  return counts.flatMap((count) => (count instanceof FpdtError ? [] : [count]));
}

/** Counts that differ in replicas alone, the least first; first those with the most ranks to a sequence, which need least of each. */
function classesOf(counts: readonly Count[]): readonly (readonly Count[])[] {
  const classes = new Map<string, Count[]>();
  for (const count of counts) {
    const { run, cluster } = count.input;
    const key = JSON.stringify([run.sequenceParallelSize, cluster.ranksPerNode, cluster.overheads]);
    classes.set(key, [...(classes.get(key) ?? []), count]);
  }
  const size = ([count]: readonly Count[]): number => count?.input.run.sequenceParallelSize ?? 0;
  return [...classes.values()].sort((a, b) => size(b) - size(a));
}

function tooFew(counts: readonly Count[], look: (gpus: number) => Probe): readonly TooFewGpus[] {
  const largest = new Map(counts.map((count) => [count.input.run.sequenceParallelSize, count]));
  return [...largest.values()].flatMap(({ gpus, input }) => {
    const looked = look(gpus);
    const { sequenceParallelSize, dataParallelSize } = input.run;
    return looked.fits ? [] : [{ gpus, sequenceParallelSize, dataParallelSize, bound: looked.bound }];
  });
}

function nothingFits(parse: Parse, most: number): FpdtError {
  const allowed = countsBelow(most + 1, parse).at(-1);
  if (allowed !== undefined)
    return hopeless(allowed.gpus === 1 ? 'one GPU is not enough' : `not even ${allowed.gpus} GPUs are enough`, allowed.input);
  const last = parse(most);
  return last instanceof FpdtError ? last : new FpdtError(`${most} GPUs are not enough`, { code: 'does-not-fit' });
}
