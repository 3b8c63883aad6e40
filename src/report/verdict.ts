/** What a run must keep to: the loss falls, memory and step time are what the plan said. */
import { formatBytes, formatSeconds } from '../plan/summary.js';
import type { Comparison, PlannedMeasured } from './compare.js';

/** Largest factor, either way, between planned and measured step time. */
export const MAX_STEP_FACTOR = 1.5;
/** Largest difference between planned and measured memory, as a part of the planned. */
export const MAX_MEMORY_ERROR = 0.05;

export interface Verdict {
  readonly ok: boolean;
  /** One line per broken promise. */
  readonly failures: readonly string[];
}

export function judge(comparison: Comparison): Verdict {
  const failures = [
    ...judgeLoss(comparison),
    ...judgeMemory('hbm', comparison.hbmBytes),
    ...judgeMemory('host', comparison.hostBytes),
    ...judgeCopies('h2d', comparison.h2dBytes),
    ...judgeCopies('d2h', comparison.d2hBytes),
    ...judgeStep(comparison.stepSeconds),
  ];
  return { ok: failures.length === 0, failures };
}

/** `loss A -> B, hbm planned X measured Y, step planned S measured T`. */
export function verdictLine({ firstLoss, lastLoss, hbmBytes, stepSeconds }: Comparison): string {
  const loss = (value: number | null): string => (value === null ? 'not finite' : value.toFixed(4));
  const hbm = `hbm planned ${formatBytes(hbmBytes.planned)} measured ${formatBytes(hbmBytes.measured)}`;
  const step = `step planned ${formatSeconds(stepSeconds.planned)} measured ${formatSeconds(stepSeconds.measured)}`;
  return `loss ${loss(firstLoss)} -> ${loss(lastLoss)}, ${hbm}, ${step}`;
}

function judgeLoss({ firstLoss, lastLoss }: Comparison): string[] {
  if (firstLoss === null || lastLoss === null) return ['the loss is not finite'];
  return lastLoss < firstLoss ? [] : [`the loss did not fall: ${firstLoss.toFixed(4)} -> ${lastLoss.toFixed(4)}`];
}

function judgeMemory(pool: string, { planned, measured }: PlannedMeasured): string[] {
  const error = planned === 0 ? (measured === 0 ? 0 : Number.POSITIVE_INFINITY) : measured / planned - 1;
  if (Math.abs(error) <= MAX_MEMORY_ERROR) return [];
  const size = Number.isFinite(error) ? `${error > 0 ? '+' : ''}${(error * 100).toFixed(1)}%` : 'nothing was planned';
  return [`${pool} memory is off by more than ${MAX_MEMORY_ERROR * 100}%: planned ${formatBytes(planned)}, measured ${formatBytes(measured)} (${size})`];
}

function judgeCopies(direction: string, { planned, measured }: PlannedMeasured): string[] {
  return planned === measured ? [] : [`copied bytes ${direction} differ from the plan's formula: planned ${planned}, measured ${measured}`];
}

function judgeStep({ planned, measured }: PlannedMeasured): string[] {
  const factor = Math.max(measured / planned, planned / measured);
  if (factor <= MAX_STEP_FACTOR) return [];
  return [`step time is off by ${factor.toFixed(2)}x (limit ${MAX_STEP_FACTOR}x): planned ${formatSeconds(planned)}, measured ${formatSeconds(measured)}`];
}
