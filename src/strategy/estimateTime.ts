/**
 * How long a step of a strategy takes, in time that does not grow with its number of chunks. Ops of one more chunk of queries take longer
 * by what one more chunk of keys takes, so what a stream is busy is a polynomial of degree two in the number of chunks, and so is, while
 * one stream is the busiest, what it waits for others: both found from three small programs with chunks of the same size. Where calls wait
 * for each other's bytes is known once addresses are, of the smallest of them: that costs a call as much whatever its chunks. Where keys are
 * cut into ranges that the small programs have, these lie whole ranges apart; where ranges are longer, the small programs are not cut, and
 * the merges that are missing take less than a thousandth of the attention between them.
 */
import { type StepTime, stepTime } from '../predict/stepTime.js';
import { layoutSchedule } from '../address/layout.js';
import { buildSchedule } from '../schedule/build.js';
import { mostRangeChunks } from '../schedule/policies/index.js';
import type { Schedule } from '../schedule/schedule.js';
import type { Strategy } from '../spec/strategy.js';
import { fewChunks } from './fewChunks.js';
import { quadratic } from './quadratic.js';
import { type Setting, policyContext } from './setting.js';

/** Where an estimate may end early. */
export interface TimeLimits {
  /** Programs of at most so many chunks are looked at, however much of theirs streams wait for others. */
  readonly mostChunks?: number;
  /** Of a strategy whose busiest stream alone takes so long or longer, its seconds are enough. */
  readonly enoughSeconds?: number;
}

/** Seconds of one optimizer step. */
export function estimateTime(
  setting: Setting,
  strategy: Strategy,
  { mostChunks = Number.POSITIVE_INFINITY, enoughSeconds = Number.POSITIVE_INFINITY }: TimeLimits = {},
): number {
  const { numChunks, kvTileChunks } = strategy;
  const few = fewChunks(strategy, setting.model) + kvTileChunks;
  const range = mostRangeChunks(strategy);
  const isCut = range <= few && cutsRanges(setting, strategy);
  const build = (count: number): Schedule => scheduleOf(setting, { ...strategy, numChunks: count }, isCut ? range : numChunks);
  const known = new Map<number, StepTime>();
  let smallest: Schedule | undefined;
  const timeOf = (count: number): StepTime => {
    const found = known.get(count);
    if (found !== undefined) return found;
    const schedule = build(count);
    smallest ??= schedule;
    const time = stepTime({ ...setting, ...schedule });
    known.set(count, time);
    return time;
  };
  let before = 0;
  for (
    let apart = isCut ? commonMultiple(range, kvTileChunks) : kvTileChunks;
    few + 2 * apart < numChunks;
    apart = Math.max(2 * apart, few)
  ) {
    const times = [few, few + apart, few + 2 * apart].map(timeOf) as [StepTime, StepTime, StepTime];
    const at = (value: (time: StepTime) => number): number => quadratic(times.map(value), (numChunks - few) / apart);
    const leastSeconds = Math.max(...times[0].aloneSeconds.map((_, stream) => at((time) => time.aloneSeconds[stream] ?? 0)));
    if (leastSeconds >= enoughSeconds) return leastSeconds;
    const busySeconds = times[0].busySeconds.map((_, stream) => at((time) => time.busySeconds[stream] ?? 0));
    const busiest = busiestOf(busySeconds);
    const waiting = (time: StepTime): number => time.seconds - (time.busySeconds[busiest] ?? 0);
    const busy = busySeconds[busiest] ?? 0;
    const linear = waiting(times[2]) + Math.max(0, (waiting(times[2]) - waiting(times[1])) / apart) * (numChunks - few - 2 * apart);
    const seconds = busy + Math.max(linear, at(waiting));
    const isSure =
      busiestOf(times[2].busySeconds) === busiest && at(waiting) <= MOST_WAITING * busy && Math.abs(at(waiting) - linear) <= UNSURE * busy;
    const isLast = few + 2 * Math.max(2 * apart, few) > mostChunks;
    if (isSure || isLast || Math.abs(seconds - before) <= AGREES * seconds) {
      return seconds + stepTime({ ...setting, ...layoutSchedule(smallest as Schedule) }).seconds - times[0].seconds;
    }
    before = seconds;
  }
  return stepTime({ ...setting, ...layoutSchedule(scheduleOf(setting, strategy, range)) }).seconds;
}

/** Whether some op would see more keys than a range has: not where all keys come in tiles that are no longer. */
function cutsRanges({ places }: Setting, strategy: Strategy): boolean {
  return strategy.kvTileChunks > mostRangeChunks(strategy) || strategy.layers.some(({ keyValues }) => keyValues === places.device);
}

/** As `estimateTime`, for many chunks soon, and less exactly: of a program that mostly waits. */
export function estimateTimeSoon(setting: Setting, strategy: Strategy): number {
  const { headGroups = 1 } = strategy;
  return estimateTime(setting, strategy, { mostChunks: SMALL_CHUNKS / Math.sqrt(headGroups) });
}

/** Programs of as many chunks are built in a second; each group of heads has ops of its own on each pair of them. */
const SMALL_CHUNKS = 96;

/** Of the busiest stream's work: one that waits longer is not alone in saying how long a step takes, and larger programs are looked at. */
const MOST_WAITING = 0.1;
/** Of the same: where what it waits seems to grow other than evenly by more, a few chunks next to each other do not tell. */
const UNSURE = 0.003;

/** Of a step: where programs of more chunks tell the same of it as those before them, those of still more do. */
const AGREES = 0.002;

function busiestOf(busySeconds: readonly number[]): number {
  return busySeconds.indexOf(Math.max(...busySeconds));
}

function scheduleOf(setting: Setting, strategy: Strategy, rangeChunks: number): Schedule {
  return buildSchedule({ ...policyContext(setting, strategy), rangeChunks }, setting.machine, () => 0);
}

function commonMultiple(a: number, b: number): number {
  let multiple = Math.max(a, b);
  while (multiple % a !== 0 || multiple % b !== 0) multiple += Math.max(a, b);
  return multiple;
}
