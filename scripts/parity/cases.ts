/** Cases of the parity run: a set that covers every pair of values of any two dimensions, made greedily. */
import { mulberry32 } from '../../src/address/layout.js';

const POOLS = ['hbm', 'host'] as const;
const POOLS_AND_DISK = ['hbm', 'host', 'disk'] as const;

/** One model, one parallel layout, one forced strategy. */
const DIMENSIONS = {
  sequenceParallelSize: [1, 2, 4],
  dataParallelSize: [1, 2],
  zeroStage: [0, 1, 2, 3],
  gradientAccumulationSteps: [1, 2],
  lossScale: [1, 65536],
  /** 8 query heads over 8, 4, 2 or 1 key/value heads; with 4 ranks the last two are copied. */
  heads: ['mha', 'gqa', 'gqa2', 'mqa'],
  tied: [false, true],
  /** A sliding window, which cuts through chunks of 8 and of 30 tokens. */
  window: [null, 20],
  kernel: ['cpu_flash', 'reference'],
  numChunks: [1, 2, 8],
  kvTileChunks: [1, 3],
  numLossTiles: [1, 3],
  numTokenTiles: [1, 3],
  prefetchDepth: [1, 2, 3],
  /** Groups of the heads of a rank. */
  headGroups: [1, 2],
  keyValues: POOLS,
  keyValueGradients: POOLS,
  attentionOutput: [...POOLS_AND_DISK, 'recompute'],
  /** Of layers that are rebuilt. */
  rebuiltOutput: [...POOLS_AND_DISK, 'recompute'],
  /** Products inside of what follows attention. */
  internals: ['recompute', ...POOLS_AND_DISK],
  /** Whether the last layer of a segment is. */
  rebuildsLast: [false, true],
  checkpoints: POOLS_AND_DISK,
  hiddenGradients: POOLS,
  backwardOrder: ['queryOuterDescending', 'keyValueOuterAscending'],
  segments: ['ones', 'twos', 'unequal'],
  /** Whether the last layer has a placement of its own, the opposite of the others'. */
  ranges: ['one', 'mixed'],
  /** Whether sequences are documents, drawn from a seed, with weights of the loss. */
  packing: [false, true],
} as const;

type Values = typeof DIMENSIONS;
export type ParityCase = { readonly [K in keyof Values]: Values[K][number] };
const NAMES = Object.keys(DIMENSIONS) as (keyof ParityCase)[];

/** The choices of `fpdt` on two ranks under ZeRO-3; cases by hand say what they have else. */
export const FPDT_CASE: ParityCase = {
  sequenceParallelSize: 2,
  dataParallelSize: 1,
  zeroStage: 3,
  gradientAccumulationSteps: 1,
  lossScale: 1,
  heads: 'gqa',
  tied: false,
  window: null,
  kernel: 'cpu_flash',
  numChunks: 8,
  kvTileChunks: 1,
  numLossTiles: 1,
  numTokenTiles: 1,
  prefetchDepth: 2,
  headGroups: 1,
  keyValues: 'host',
  keyValueGradients: 'hbm',
  attentionOutput: 'recompute',
  rebuiltOutput: 'recompute',
  internals: 'recompute',
  rebuildsLast: false,
  checkpoints: 'host',
  hiddenGradients: 'hbm',
  backwardOrder: 'keyValueOuterAscending',
  segments: 'ones',
  ranges: 'one',
  packing: false,
};

/** What no plan can be made for, or would be the same plan as another value's. */
export function isLegal(one: Partial<ParityCase>): boolean {
  if (one.backwardOrder === 'keyValueOuterAscending' && (one.keyValueGradients === 'host' || typeof one.window === 'number')) return false;
  if (typeof one.window === 'number' && one.kernel === 'cpu_flash') return false;
  if (one.headGroups === 2 && !hasGroups(one)) return false;
  const { attentionOutput = 'recompute', rebuiltOutput = 'recompute', rebuildsLast = false } = one;
  if (rebuildsLast && one.rebuiltOutput === 'recompute') return false;
  const keeps = rebuildsLast || rebuiltOutput !== 'recompute';
  if (keeps && (attentionOutput !== 'recompute' || one.segments === 'ones')) return false;
  // Of eight chunks on four ranks each rank has two tokens.
  const tiles = Math.max(one.numLossTiles ?? 1, one.numTokenTiles ?? 1);
  if (tiles > 2 && one.numChunks === 8 && one.sequenceParallelSize === 4) return false;
  return !((one.kvTileChunks ?? 1) > 1 && one.numChunks !== undefined && one.numChunks < 8);
}

/** Two key/value heads a rank, and no outer loop over keys. */
function hasGroups({ heads = 'mha', sequenceParallelSize = 1, backwardOrder }: Partial<ParityCase>): boolean {
  if (backwardOrder === 'keyValueOuterAscending') return false;
  return { mha: 8, gqa: 4, gqa2: 2, mqa: 1 }[heads] >= 2 * sequenceParallelSize;
}

export function pairsOf(one: ParityCase): readonly string[] {
  return NAMES.flatMap((a, i) => NAMES.slice(i + 1).map((b) => `${a}=${one[a]},${b}=${one[b]}`));
}

/** Every legal pair of values; what the set must cover. */
function allPairs(): ReadonlySet<string> {
  const found = new Set<string>();
  for (const [i, a] of NAMES.entries()) {
    for (const b of NAMES.slice(i + 1)) {
      for (const x of DIMENSIONS[a]) {
        for (const y of DIMENSIONS[b]) if (isLegal({ [a]: x, [b]: y })) found.add(`${a}=${x},${b}=${y}`);
      }
    }
  }
  return found;
}

/** At least `atLeast` different legal cases that cover all pairs: the best of some random candidates, again and again. */
export function coveringCases(atLeast: number, seed = 1): readonly ParityCase[] {
  const random = mulberry32(seed);
  const missing = new Set(allPairs());
  const chosen = new Map<string, ParityCase>();
  while (missing.size > 0 || chosen.size < atLeast) {
    const candidates = Array.from({ length: 64 }, () => randomCase(random)).filter((one) => !chosen.has(caseName(one)));
    const gain = (one: ParityCase): number => pairsOf(one).filter((pair) => missing.has(pair)).length;
    const best = candidates.reduce((a, b) => (gain(b) > gain(a) ? b : a));
    chosen.set(caseName(best), best);
    for (const pair of pairsOf(best)) missing.delete(pair);
  }
  return [...chosen.values()];
}

export function randomCase(random: () => number): ParityCase {
  const drawn = (): ParityCase =>
    Object.fromEntries(
      NAMES.map((name) => [name, DIMENSIONS[name][Math.floor(random() * DIMENSIONS[name].length)]]),
    ) as unknown as ParityCase;
  let candidate = drawn();
  while (!isLegal(candidate)) candidate = drawn();
  return candidate;
}

const PLACE: Readonly<Record<string, string>> = { hbm: 'D', host: 'H', disk: 'F', recompute: 'R' };

/** `P2 dp1 zero3 gqa untied u8 g3 ...`: short, and part of it selects cases with --only. */
export function caseName(one: ParityCase): string {
  return [
    `P${one.sequenceParallelSize}`,
    `dp${one.dataParallelSize}`,
    `zero${one.zeroStage}`,
    `acc${one.gradientAccumulationSteps}`,
    `scale${one.lossScale}`,
    one.heads,
    one.tied ? 'tied' : 'untied',
    one.window === null ? 'causal' : `window${one.window}`,
    one.kernel,
    `u${one.numChunks}`,
    `g${one.kvTileChunks}`,
    `tiles${one.numTokenTiles}/${one.numLossTiles}`,
    `depth${one.prefetchDepth}`,
    `heads${one.headGroups}`,
    `kv${PLACE[one.keyValues]}`,
    `dkv${PLACE[one.keyValueGradients]}`,
    `o${PLACE[one.attentionOutput]}${PLACE[one.rebuiltOutput]}${one.rebuildsLast ? 'all' : ''}`,
    `i${PLACE[one.internals]}`,
    `x${PLACE[one.checkpoints]}`,
    `dx${PLACE[one.hiddenGradients]}`,
    one.backwardOrder === 'keyValueOuterAscending' ? 'asc' : 'desc',
    one.segments,
    one.ranges,
    one.packing ? 'packed' : 'whole',
  ].join(' ');
}
