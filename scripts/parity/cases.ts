/** Cases of the parity run: a set that covers every pair of values of any two dimensions, made greedily. */
import { mulberry32 } from '../../src/plan/layout.js';
import type { PolicyName } from '../../src/spec/types.js';

export interface ParityCase {
  readonly sequenceParallelSize: 1 | 2 | 4;
  readonly zeroStage: 0 | 1 | 2 | 3;
  readonly policy: PolicyName;
  readonly numChunks: number;
  readonly segmentLayers: 1 | 2;
  readonly heads: 'mha' | 'gqa' | 'mqa';
  readonly tied: boolean;
  readonly gradientAccumulationSteps: 1 | 2;
  readonly dataParallelSize: 1 | 2;
  readonly lossScale: 1 | 65536;
}

type Values = { readonly [K in keyof ParityCase]: readonly ParityCase[K][] };

export const DIMENSIONS: Values = {
  sequenceParallelSize: [1, 2, 4],
  zeroStage: [0, 1, 2, 3],
  policy: ['ulysses', 'fpdt', 'auto'],
  numChunks: [1, 2, 8],
  segmentLayers: [1, 2],
  heads: ['mha', 'gqa', 'mqa'],
  tied: [false, true],
  gradientAccumulationSteps: [1, 2],
  dataParallelSize: [1, 2],
  lossScale: [1, 65536],
};
const NAMES = Object.keys(DIMENSIONS) as (keyof ParityCase)[];

/** Multi-query attention has one key/value head, so no sequence parallelism; `ulysses` is one chunk by definition. */
export function isLegal(candidate: Partial<ParityCase>): boolean {
  if (candidate.heads === 'mqa' && (candidate.sequenceParallelSize ?? 1) > 1) return false;
  return !(candidate.policy === 'ulysses' && (candidate.numChunks ?? 1) > 1);
}

export function pairsOf(one: ParityCase): readonly string[] {
  return NAMES.flatMap((a, i) => NAMES.slice(i + 1).map((b) => `${a}=${one[a]},${b}=${one[b]}`));
}

/** Every legal pair of values; what the set must cover. */
export function allPairs(): ReadonlySet<string> {
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
    const candidates = Array.from({ length: 64 }, () => randomCase(random)).filter((one) => !chosen.has(JSON.stringify(one)));
    const gain = (one: ParityCase): number => pairsOf(one).filter((pair) => missing.has(pair)).length;
    const best = candidates.reduce((a, b) => (gain(b) > gain(a) ? b : a));
    chosen.set(JSON.stringify(best), best);
    for (const pair of pairsOf(best)) missing.delete(pair);
  }
  return [...chosen.values()];
}

function randomCase(random: () => number): ParityCase {
  const drawn = (): ParityCase =>
    Object.fromEntries(
      NAMES.map((name) => [name, DIMENSIONS[name][Math.floor(random() * DIMENSIONS[name].length)]]),
    ) as unknown as ParityCase;
  let candidate = drawn();
  while (!isLegal(candidate)) candidate = drawn();
  return candidate;
}

export function caseName(one: ParityCase): string {
  return [
    `P${one.sequenceParallelSize}`,
    `dp${one.dataParallelSize}`,
    `zero${one.zeroStage}`,
    one.policy,
    `u${one.numChunks}`,
    `k${one.segmentLayers}`,
    one.heads,
    one.tied ? 'tied' : 'untied',
    `acc${one.gradientAccumulationSteps}`,
    `scale${one.lossScale}`,
  ].join(' ');
}
