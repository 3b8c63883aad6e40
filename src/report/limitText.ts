/** The ends of what fits, in a few lines before the summary of the plan that is there. */
import { planSummary } from '../plan/summary.js';
import { formatBytes } from '../spec/sizes.js';
import type { MaxSeqLen } from '../strategy/limits/maxSeqLen.js';
import type { MinGpus } from '../strategy/limits/minGpus.js';
import type { MinHost } from '../strategy/limits/minHost.js';
import { type PlanJson, planToJson } from './planJson.js';

export type Limit = MaxSeqLen | MinGpus | MinHost;

/** Everything else as it is: JSON-safe. */
export type LimitJson<T extends Limit> = Omit<T, 'plan'> & { readonly plan: PlanJson };

export function limitToText(limit: Limit, usdPerGpuHour?: number): string {
  return [...lines(limit), '', planSummary(limit.plan, usdPerGpuHour)].join('\n');
}

export function limitToJson<T extends Limit>(limit: T, usdPerGpuHour?: number): LimitJson<T> {
  return { ...limit, plan: planToJson(limit.plan, usdPerGpuHour) };
}

function lines(limit: Limit): readonly string[] {
  switch (limit.kind) {
    case 'maxSeqLen':
      return [
        `Longest     ${limit.seqLen} tokens fit (multiples of ${limit.granularityTokens} were looked at)`,
        `Bound       ${limit.nextSeqLen} tokens: ${limit.bound.message}`,
      ];
    case 'minGpus':
      return [
        `Fewest      ${limit.gpus} GPUs`,
        ...limit.fewer.map(
          ({ gpus, sequenceParallelSize, dataParallelSize, bound }) =>
            `Bound       ${gpus} GPUs, sequence parallel ${sequenceParallelSize} x data parallel ${dataParallelSize}: ${bound.message}`,
        ),
      ];
    case 'minHost':
      return [
        `Least       ${formatBytes(limit.hostBytes)} of host memory a rank (multiples of ${formatBytes(limit.granularityBytes)} were looked at)`,
        ...(limit.less === null ? [] : [`Bound       ${formatBytes(limit.less.hostBytes)}: ${limit.less.bound.message}`]),
      ];
  }
}
