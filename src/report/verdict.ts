/** What a run must keep to: the loss falls; memory, copies and time are what the plan said. */
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import type { Comparison, PlannedMeasured } from './compare.js';

/** Largest factor, either way, between planned and measured step time. */
export const MAX_STEP_FACTOR = 1.5;
/** Largest difference between planned and measured memory, as a part of the planned. */
export const MAX_MEMORY_ERROR = 0.05;
/** Largest part of a step that neither an op nor the idle time accounts for. */
export const MAX_UNACCOUNTED = 0.05;

export interface Verdict {
  readonly ok: boolean;
  /** One line per promise that was kept. */
  readonly kept: readonly string[];
  /** One line per broken promise. */
  readonly failures: readonly string[];
}

interface Promised {
  readonly ok: boolean;
  readonly line: string;
}

export interface JudgeOptions {
  /** False where a machine is shared with other work: its step time says nothing of the plan. Default true. */
  readonly stepTime?: boolean;
}

export function judge(comparison: Comparison, { stepTime = true }: JudgeOptions = {}): Verdict {
  const promises = [
    judgeLoss(comparison),
    judgeMemory('hbm', comparison.hbmBytes),
    judgeMemory('host', comparison.hostBytes),
    judgeCopies('h2d', comparison.h2dBytes),
    judgeCopies('d2h', comparison.d2hBytes),
    ...(stepTime ? [judgeStep(comparison.stepSeconds)] : []),
    judgeAccounting(comparison),
  ];
  const lines = (ok: boolean): string[] => promises.filter((one) => one.ok === ok).map(({ line }) => line);
  const failures = lines(false);
  return { ok: failures.length === 0, kept: lines(true), failures };
}

/** `loss A -> B, hbm planned X measured Y, step planned S measured T`. */
export function verdictLine({ firstLoss, lastLoss, hbmBytes, stepSeconds }: Comparison): string {
  const hbm = `hbm planned ${formatBytes(hbmBytes.planned)} measured ${formatBytes(hbmBytes.measured)}`;
  const step = `step planned ${formatSeconds(stepSeconds.planned)} measured ${formatSeconds(stepSeconds.measured)}`;
  return `loss ${formatLoss(firstLoss)} -> ${formatLoss(lastLoss)}, ${hbm}, ${step}`;
}

function formatLoss(value: number | null): string {
  return value === null ? 'not finite' : value.toFixed(4);
}

function judgeLoss({ firstLoss, lastLoss }: Comparison): Promised {
  const ok = firstLoss !== null && lastLoss !== null && lastLoss < firstLoss;
  return { ok, line: `loss ${ok ? 'fell' : 'did not fall'}: ${formatLoss(firstLoss)} -> ${formatLoss(lastLoss)}` };
}

function judgeMemory(pool: string, { planned, measured }: PlannedMeasured): Promised {
  const error = planned === measured ? 0 : measured / planned - 1;
  const ok = Math.abs(error) <= MAX_MEMORY_ERROR;
  const size = planned === 0 ? '' : ` (${error < 0 ? '' : '+'}${(error * 100).toFixed(1)}%)`;
  const line = `${pool} memory within ${MAX_MEMORY_ERROR * 100}%: planned ${formatBytes(planned)}, measured ${formatBytes(measured)}${size}`;
  return { ok, line };
}

function judgeCopies(direction: string, { planned, measured }: PlannedMeasured): Promised {
  return {
    ok: planned === measured,
    line: `bytes copied ${direction} as the policy's formula says: planned ${planned}, measured ${measured}`,
  };
}

function judgeStep({ planned, measured }: PlannedMeasured): Promised {
  const factor = Math.max(measured / planned, planned / measured);
  const line = `step time within ${MAX_STEP_FACTOR}x: planned ${formatSeconds(planned)}, measured ${formatSeconds(measured)} (${factor.toFixed(2)}x)`;
  return { ok: factor <= MAX_STEP_FACTOR, line };
}

/** Means, because medians of parts do not add up to the median of the whole. */
function judgeAccounting({ meanStepSeconds, meanAccountedSeconds }: Comparison): Promised {
  const error = meanAccountedSeconds / meanStepSeconds - 1;
  const line = `op time + idle = step time within ${MAX_UNACCOUNTED * 100}%: ${formatSeconds(meanAccountedSeconds)} of ${formatSeconds(meanStepSeconds)}`;
  return { ok: Math.abs(error) <= MAX_UNACCOUNTED, line };
}
