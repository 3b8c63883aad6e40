/** What would make a request fit that does not, and what that costs. */
import { roomBytes } from '../memory/ledger.js';
import { FpdtError } from '../spec/errors.js';
import { formatBytes, formatSeconds } from '../spec/sizes.js';
import { type Asks, type Change, type Remedy, remedies } from './changes.js';
import type { Evaluator } from './evaluator.js';
import { findIn } from './findStrategy.js';
import { mayFit } from './mayFit.js';
import { type BuildInput, settingOf } from './setting.js';
import { finish, type Steps } from './steps.js';

/** A change that was checked to fit. */
export interface PricedChange {
  /** As a user would name it: `numChunks=16`. */
  readonly change: string;
  readonly asks: Asks;
  readonly pools: readonly { readonly pool: string; readonly peakBytes: number; readonly roomBytes: number }[];
  /** Estimated, of an optimizer step of a strategy that fits; the fastest that does may take less. */
  readonly stepSeconds: number;
  /** Of all ranks together. */
  readonly gpuHoursPerStep: number;
}

const SECONDS_PER_HOUR = 3600;
/** More than these are in `details` alone. */
const MOST_IN_TEXT = 4;

/** One of each kind of change: first other settings of the same run, then other machines, then another run; each by GPU-hours. */
export function* pricedChanges(input: BuildInput, evaluate: Evaluator): Steps<readonly PricedChange[]> {
  const fitsIsEnough = { ...evaluate, seconds: () => 0, computeSeconds: () => 0 };
  const found: PricedChange[] = [];
  for (const remedy of remedies(input)) {
    const priced = yield* firstThatFits(remedy, evaluate, fitsIsEnough);
    if (priced !== undefined) found.push(priced);
  }
  const order: readonly Asks[] = ['settings', 'machines', 'run'];
  return found.toSorted((a, b) => order.indexOf(a.asks) - order.indexOf(b.asks) || a.gpuHoursPerStep - b.gpuHoursPerStep);
}

function* firstThatFits({ asks, changes }: Remedy, evaluate: Evaluator, fitsIsEnough: Evaluator): Steps<PricedChange | undefined> {
  for (const change of changes) {
    yield;
    const priced = priceOf(change, asks, evaluate, fitsIsEnough);
    if (priced !== undefined) return priced;
  }
  return undefined;
}

/** With money where a GPU-hour has a price. */
export function changesToText(changes: readonly PricedChange[], usdPerGpuHour?: number): string {
  const [first, ...others] = changes.slice(0, MOST_IN_TEXT);
  if (first === undefined) return '';
  const used = first.pools.map((pool) => `${pool.pool} ${formatBytes(pool.peakBytes)} of ${formatBytes(pool.roomBytes)}`);
  const cheapest = `${first.change} fits: ${used.join(', ')}, ${priceText(first, usdPerGpuHour)}`;
  return [cheapest, ...others.map((one) => `or ${one.change}: ${priceText(one, usdPerGpuHour)}`)].join('; ');
}

/** An error of planning, its hint with money if it names changes. */
export function withPrice(error: unknown, usdPerGpuHour: number): unknown {
  if (!(error instanceof FpdtError) || error.code !== 'does-not-fit') return error;
  const { changes } = (error.details ?? {}) as { readonly changes?: readonly PricedChange[] };
  if (changes === undefined) return error;
  const { message, code, details } = error;
  return new FpdtError(message, { code, details, hint: changesToText(changes, usdPerGpuHour), cause: error });
}

function priceText({ stepSeconds, gpuHoursPerStep }: PricedChange, usdPerGpuHour: number | undefined): string {
  const rounded = (value: number): number => Number(value.toPrecision(3));
  const money = usdPerGpuHour === undefined ? '' : ` (${rounded(usdPerGpuHour * gpuHoursPerStep)} USD)`;
  return `at most ${formatSeconds(stepSeconds)} a step, ${rounded(gpuHoursPerStep)} GPU-hours${money}`;
}

function priceOf({ name, input }: Change, asks: Asks, evaluate: Evaluator, fitsIsEnough: Evaluator): PricedChange | undefined {
  const setting = settingOf(input);
  if (!mayFit(setting, evaluate)) return undefined;
  const { strategy, memory } = finish(findIn(setting, fitsIsEnough));
  if (!memory.fits) return undefined;
  const stepSeconds = evaluate.secondsSoon(setting, strategy);
  return {
    change: name(strategy),
    asks,
    pools: memory.pools.map((pool) => ({ pool: pool.pool, peakBytes: pool.peakBytes, roomBytes: roomBytes(pool) })),
    stepSeconds,
    gpuHoursPerStep: (stepSeconds * input.cluster.numRanks) / SECONDS_PER_HOUR,
  };
}
