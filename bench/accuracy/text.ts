/** Planned against measured as lines of text, for a terminal and for docs/accuracy.md. */
import { formatTable } from '../../src/report/table.js';
import { formatSeconds } from '../../src/spec/sizes.js';
import { type Accuracy, MAX_DRIFT, MAX_KIND_ERROR, MAX_STEP_ERROR, MIN_KIND_SHARE, type RunAccuracy, type ShapeAccuracy } from './judge.js';

export function shapeText(accuracy: ShapeAccuracy): string {
  return [`${shapeTitle(accuracy)}; ${driftText(accuracy)}`, ...accuracy.runs.map((run) => `\n${runText(run)}`)].join('\n');
}

export function shapeTitle({ shape: { name, config, dtype, numChunks, chunkTokens } }: ShapeAccuracy): string {
  const size = `${String(config['num_hidden_layers'])} layers of ${String(config['hidden_size'])}`;
  return `${name}: ${size}, ${dtype}, ${numChunks} chunks of ${chunkTokens} tokens`;
}

export function driftText({ drift, numRounds, judged }: ShapeAccuracy): string {
  const rounds = numRounds === 1 ? '' : ` in the best of ${numRounds} rounds`;
  return `the machine's speed changed by ${percent(drift)}${rounds}${judged ? '' : ': not judged'}`;
}

export function runText(run: RunAccuracy): string {
  const rows = run.kinds.map((kind) => [
    kind.kind,
    formatSeconds(kind.plannedSeconds),
    formatSeconds(kind.measuredSeconds),
    kind.error === null ? '-' : signed(kind.error),
    kind.judged ? '' : `below ${percent(MIN_KIND_SHARE)} of the step`,
  ]);
  const outside = ['outside the ops', formatSeconds(run.plannedOutsideSeconds), formatSeconds(run.measuredIdleSeconds), '', ''];
  const step = ['step', formatSeconds(run.plannedSeconds), formatSeconds(run.measuredSeconds), signed(run.error), ''];
  return formatTable([`policy ${run.policy}`, 'planned', 'measured', 'error', ''], [...rows, outside, step]);
}

export function verdictText({ numJudged, shapes, medianStepError, numKindsJudged, numKindsWithin, ok }: Accuracy): string {
  const drifted = shapes.length - numJudged;
  const unjudged = drifted === 0 ? '' : `; ${drifted} not judged, since the machine's speed changed by more than ${percent(MAX_DRIFT)}`;
  if (medianStepError === null) return `nothing is judged${unjudged}`;
  return [
    `${ok === true ? 'ok' : 'missed'}: step time off by ${percent(medianStepError)} (median over ${numJudged} shapes, of each the worse policy; `,
    `at most ${percent(MAX_STEP_ERROR)}), ${numKindsWithin} of ${numKindsJudged} op kinds within ${percent(MAX_KIND_ERROR)}${unjudged}`,
  ].join('');
}

export function signed(error: number): string {
  return `${error < 0 ? '' : '+'}${percent(error)}`;
}

function percent(part: number): string {
  return `${(100 * part).toFixed(1)}%`;
}
