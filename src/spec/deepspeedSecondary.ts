/** hpZ: a second partition of the weights over groups of ranks, in which backward gathers (ZeRO++, arXiv 2306.10209, section 4.2). */
import type { Problem } from './deepspeedReport.js';
import { type JsonObject, valueIn } from './parseJson.js';
import type { ClusterSpec } from './types.js';

const PATH = 'zero_optimization.zero_hpz_partition_size';

/** Ranks of a group, which DeepSpeed takes to be at most all; undefined where there is no second partition. */
export function secondaryGroupSize(config: JsonObject, numRanks: number): number | undefined {
  const size = Number(valueIn(config, PATH.split('.')) ?? 1);
  const stage = Number(valueIn(config, ['zero_optimization', 'stage']) ?? 0);
  return stage === 3 && size > 1 ? Math.min(size, numRanks) : undefined;
}

/** Groups are as large as each other (`_create_zero_param_parallel_group`, utils/groups.py). */
export function secondaryPartitionProblems(config: JsonObject, { numRanks }: Pick<ClusterSpec, 'numRanks'>): readonly Problem[] {
  const size = secondaryGroupSize(config, numRanks);
  if (size === undefined || numRanks % size === 0) return [];
  const divisors = Array.from({ length: numRanks }, (_, i) => i + 1).filter((one) => numRanks % one === 0);
  const nearest = divisors.reduce((best, next) => (Math.abs(next - size) < Math.abs(best - size) ? next : best));
  return [
    {
      path: PATH,
      text: `: ${numRanks} ranks do not split into groups of ${size}`,
      code: 'invalid-value',
      hint: `${nearest} works; the ranks of a node are what it is meant for`,
      details: { divisors },
    },
  ];
}
