/** What a run must keep to: the loss falls; memory, copies and time are what the plan said. */
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import type { Comparison, CopyComparison, PlannedMeasured, PoolComparison } from './compare.js';

/** Largest factor, either way, between planned and measured step time. */
const MAX_STEP_FACTOR = 1.5;
/** Largest difference between planned and measured memory, as a part of the planned. */
const MAX_MEMORY_ERROR = 0.05;
/** Largest part of a step that neither an op nor the idle time accounts for. */
const MAX_UNACCOUNTED = 0.05;
/** Largest change of the machine's speed since it was calibrated that a broken promise of time is not put down to. */
const MAX_SPEED_CHANGE = 0.1;

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
  /** False where a machine is shared with other work: its step time says nothing of the plan. */
  readonly stepTime: boolean;
  /** Speed of the machine now over its speed when it was calibrated, from a calibration repeated after training. */
  readonly speedFactor?: number;
}

export function judge(comparison: Comparison, { stepTime, speedFactor = 1 }: JudgeOptions = { stepTime: true }): Verdict {
  const promises = [
    judgeLoss(comparison),
    ...comparison.pools.map(judgeMemory),
    ...comparison.copies.map(judgeCopies),
    ...(stepTime ? [judgeStep(comparison.stepSeconds, speedFactor)] : []),
    judgeAccounting(comparison),
  ];
  const lines = (ok: boolean): string[] => promises.filter((one) => one.ok === ok).map(({ line }) => line);
  const failures = lines(false);
  return { ok: failures.length === 0, kept: lines(true), failures };
}

/** `loss A -> B, hbm planned X measured Y, step planned S measured T`; of pools the first, the device's. */
export function verdictLine({ firstLoss, lastLoss, pools, stepSeconds }: Comparison): string {
  const [device] = pools;
  const memory = device === undefined ? [] : [`${device.pool} planned ${formatBytes(device.planned)} measured ${formatMeasured(device)}`];
  const step = `step planned ${formatSeconds(stepSeconds.planned)} measured ${formatSeconds(stepSeconds.measured)}`;
  return [`loss ${formatLoss(firstLoss)} -> ${formatLoss(lastLoss)}`, ...memory, step].join(', ');
}

function formatMeasured({ measured }: PoolComparison): string {
  return measured === null ? 'in no step' : formatBytes(measured);
}

function formatLoss(value: number | null): string {
  return value === null ? 'not finite' : value.toFixed(4);
}

function judgeLoss({ firstLoss, lastLoss }: Comparison): Promised {
  const ok = firstLoss !== null && lastLoss !== null && lastLoss < firstLoss;
  return { ok, line: `loss ${ok ? 'fell' : 'did not fall'}: ${formatLoss(firstLoss)} -> ${formatLoss(lastLoss)}` };
}

function judgeMemory(comparison: PoolComparison): Promised {
  const { pool, planned, measured } = comparison;
  const error = measured === planned ? 0 : (measured ?? 0) / planned - 1;
  const ok = measured !== null && Math.abs(error) <= MAX_MEMORY_ERROR;
  const size = planned === 0 || measured === null ? '' : ` (${error < 0 ? '' : '+'}${(error * 100).toFixed(1)}%)`;
  const line = `${pool} memory within ${MAX_MEMORY_ERROR * 100}%: planned ${formatBytes(planned)}, measured ${formatMeasured(comparison)}${size}`;
  return { ok, line };
}

function judgeCopies({ stream, planned, measured }: CopyComparison): Promised {
  return { ok: planned === measured, line: `bytes copied on ${stream} as the plan says: planned ${planned}, measured ${measured}` };
}

/** A machine that runs at another speed than when it was calibrated breaks no promise of the plan. */
function judgeStep({ planned, measured }: PlannedMeasured, speedFactor: number): Promised {
  const expected = planned / speedFactor;
  const factor = Math.max(measured / expected, expected / measured);
  const changed = Math.abs(speedFactor - 1) > MAX_SPEED_CHANGE;
  const adjusted = speedFactor === 1 ? '' : `, at today's speed ${formatSeconds(expected)}`;
  const times = `planned ${formatSeconds(planned)}${adjusted}, measured ${formatSeconds(measured)} (${factor.toFixed(2)}x)`;
  const within = `step time within ${MAX_STEP_FACTOR}x: ${times}`;
  if (!changed) return { ok: factor <= MAX_STEP_FACTOR, line: within };
  const speed = `the machine now runs at ${speedFactor.toFixed(2)} times the speed it was calibrated at`;
  return { ok: true, line: factor <= MAX_STEP_FACTOR ? `${within}; ${speed}` : `step time not judged, ${speed}: ${times}` };
}

/** Means, because medians of parts do not add up to the median of the whole. */
function judgeAccounting({ meanStepSeconds, meanAccountedSeconds }: Comparison): Promised {
  const error = meanAccountedSeconds / meanStepSeconds - 1;
  const line = `op time + idle = step time within ${MAX_UNACCOUNTED * 100}%: ${formatSeconds(meanAccountedSeconds)} of ${formatSeconds(meanStepSeconds)}`;
  return { ok: Math.abs(error) <= MAX_UNACCOUNTED, line };
}
