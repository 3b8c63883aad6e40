/** What training by a plan costs: GPU-hours, and money where an hour has a price. */
import { FpdtError } from '../spec/errors.js';
import type { Prediction } from '../predict/prediction.js';
import type { ClusterSpec } from '../spec/types.js';

/** GPU-hours are those of all ranks together; a step is an optimizer step, and tokens are those of the data, padding not counted. */
export interface PlanCost {
  readonly gpuHoursPerStep: number;
  readonly gpuHoursPerBillionTokens: number;
  readonly usdPerGpuHour?: number;
  readonly usdPerStep?: number;
  readonly usdPerBillionTokens?: number;
}

interface Priced {
  readonly cluster: Pick<ClusterSpec, 'numRanks'>;
  readonly prediction: Pick<Prediction, 'stepSeconds' | 'tokensPerSecond'>;
}

const SECONDS_PER_HOUR = 3600;
const BILLION = 1e9;

/** Throws `invalid-value` for a price that is no number above 0. */
export function planCost({ cluster, prediction }: Priced, usdPerGpuHour?: number): PlanCost {
  const hoursPerSecond = cluster.numRanks / SECONDS_PER_HOUR;
  const gpuHoursPerStep = hoursPerSecond * prediction.stepSeconds;
  const gpuHoursPerBillionTokens = (hoursPerSecond * BILLION) / prediction.tokensPerSecond;
  if (usdPerGpuHour === undefined) return { gpuHoursPerStep, gpuHoursPerBillionTokens };
  checkPrice(usdPerGpuHour);
  return {
    gpuHoursPerStep,
    gpuHoursPerBillionTokens,
    usdPerGpuHour,
    usdPerStep: usdPerGpuHour * gpuHoursPerStep,
    usdPerBillionTokens: usdPerGpuHour * gpuHoursPerBillionTokens,
  };
}

/** Before a plan is there, too. */
export function checkPrice(usdPerGpuHour: number): void {
  if (Number.isFinite(usdPerGpuHour) && usdPerGpuHour > 0) return;
  throw new FpdtError(`the price of a GPU-hour: expected a number above 0, found ${usdPerGpuHour}`, {
    code: 'invalid-value',
    hint: 'give US dollars an hour of one GPU, e.g. 2.5',
  });
}
