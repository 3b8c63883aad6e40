/** One line per step while a run goes on: step, loss, learning rate, gradient norm, speed, memory against plan. */
import type { EvaluationResult } from '../bridge/evaluations.js';
import type { StepResult } from '../bridge/runResult.js';
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import type { ReportPlan } from './compare.js';

/**
 * `step  3/20  loss 5.1234  lr 1.00e-4  grad norm 0.982  1.42 s (plan 1.40 s)  11,512 tokens/s  hbm 41.2 MiB of 41.9 MiB planned`; pools
 * where memory was measured.
 */
export function progressLine({ memory, run, prediction }: ReportPlan, step: StepResult): string {
  const total = String(run.numSteps);
  const done = String(step.step + 1).padStart(total.length);
  const loss = step.loss === null ? 'not finite' : step.loss.toFixed(4);
  const speed = step.seconds > 0 ? Math.round(step.tokens / step.seconds).toLocaleString('en-US') : '-';
  return [
    `step ${done}/${total}`,
    `loss ${loss}`,
    ...(step.learningRate === null ? [] : [`lr ${step.learningRate.toExponential(2)}`]),
    ...(step.gradientNorm === null ? [] : [`grad norm ${formatNorm(step.gradientNorm)}`]),
    `${formatSeconds(step.seconds)} (plan ${formatSeconds(prediction.stepSeconds)})`,
    `${speed} tokens/s`,
    ...(step.memoryMeasured ? poolTexts(memory, step) : []),
    ...(step.nonFinite.length === 0
      ? []
      : [`not finite: ${step.nonFinite.join(', ')}${step.nonFinitePlace === null ? '' : ` (${step.nonFinitePlace})`}`]),
    ...(run.dtype === 'float16' || step.skipped ? [`${step.skipped ? 'step skipped, ' : ''}loss scale ${step.lossScale}`] : []),
  ].join('  ');
}

/** `evaluation after step 10  loss 4.8712  perplexity 130.5  65,536 tokens of 16 sequences in 3.20 s (plan 3.02 s)`. */
export function evaluationLine({ run, prediction }: ReportPlan, evaluation: EvaluationResult): string {
  const { step, loss, perplexity, tokens, sequences, seconds } = evaluation;
  const planned = prediction.evaluation && (prediction.evaluation.sequenceSeconds * sequences) / run.dataParallelSize;
  const of = `${tokens.toLocaleString('en-US')} tokens of ${sequences} ${sequences === 1 ? 'sequence' : 'sequences'}`;
  return [
    `evaluation after step ${step}`,
    `loss ${loss === null ? 'not finite' : loss.toFixed(4)}`,
    ...(perplexity === null ? [] : [`perplexity ${perplexity.toPrecision(4)}`]),
    `${of} in ${formatSeconds(seconds)}${planned === undefined ? '' : ` (plan ${formatSeconds(planned)})`}`,
  ].join('  ');
}

function formatNorm(norm: number): string {
  return norm !== 0 && (norm < 0.01 || norm >= 1e4) ? norm.toExponential(2) : norm.toPrecision(3);
}

/** Pools that the plan or the step uses. */
function poolTexts({ pools }: ReportPlan['memory'], { poolBytes }: StepResult): readonly string[] {
  return pools.flatMap(({ pool, peakBytes }) => {
    const measured = poolBytes[pool] ?? 0;
    return measured > 0 || peakBytes > 0 ? [`${pool} ${formatBytes(measured)} of ${formatBytes(peakBytes)} planned`] : [];
  });
}
