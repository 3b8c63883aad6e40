/** One line per step while a run goes on: step, loss, speed, memory against plan. */
import type { StepResult } from '../bridge/runResult.js';
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import type { ReportPlan } from './compare.js';

/** `step  3/20  loss 5.1234  1.42 s  11,512 tokens/s  hbm 41.2 of 41.9 MiB planned`. */
export function progressLine({ memory, run, prediction }: ReportPlan, step: StepResult): string {
  const total = String(run.numSteps);
  const done = String(step.step + 1).padStart(total.length);
  const loss = step.loss === null ? 'not finite' : step.loss.toFixed(4);
  const speed = step.seconds > 0 ? Math.round(step.tokens / step.seconds).toLocaleString('en-US') : '-';
  const host = memory.host.peakBytes > 0 || step.hostBytes > 0 ? `  host ${against(step.hostBytes, memory.host.peakBytes)}` : '';
  return [
    `step ${done}/${total}`,
    `loss ${loss}`,
    `${formatSeconds(step.seconds)} (plan ${formatSeconds(prediction.stepSeconds)})`,
    `${speed} tokens/s`,
    `hbm ${against(step.hbmBytes, memory.hbm.peakBytes)}${host}`,
    ...(step.nonFinite.length === 0 ? [] : [`not finite: ${step.nonFinite.join(', ')}`]),
  ].join('  ');
}

function against(measured: number, planned: number): string {
  return `${formatBytes(measured)} of ${formatBytes(planned)} planned`;
}
