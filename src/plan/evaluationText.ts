/** What a plan says of its program that evaluates. */
import { bufferRange } from '../address/bytes.js';
import { isOfEvaluation } from '../schedule/evaluation.js';
import type { Schedule } from '../schedule/schedule.js';
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import type { ExecutionPlan } from './executionPlan.js';

/** A line of the summary; none without the program. */
export function evaluationLines({ prediction: { evaluation }, pools, buffers }: ExecutionPlan): readonly string[] {
  if (evaluation === undefined) return [];
  const more = pools.flatMap(({ name }) => {
    const bytes = evaluationExcess({ buffers }, name);
    return bytes === 0 ? [] : [`${formatBytes(bytes)} of ${name}`];
  });
  const where = more.length === 0 ? 'within the arenas of training' : `beyond the arenas of training by ${more.join(', ')}`;
  const { sequenceSeconds, tokensPerSecond } = evaluation;
  return [`Evaluation  ${formatSeconds(sequenceSeconds)} a sequence predicted, ${tokensPerSecond.toPrecision(4)} tokens/s; ${where}`];
}

/** Bytes that an evaluation needs of a pool beyond what training does; 0 where its buffers lie within training's arena. */
export function evaluationExcess({ buffers }: Pick<Schedule, 'buffers'>, pool: string): number {
  const endOf = (evaluates: boolean): number =>
    buffers
      .filter((buffer) => buffer.pool === pool && isOfEvaluation(buffer) === evaluates)
      .reduce((end, buffer) => Math.max(end, bufferRange(buffer).end), 0);
  return Math.max(0, endOf(true) - endOf(false));
}
