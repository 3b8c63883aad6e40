/** What the solver asks of a strategy. */
import type { MemoryLedger } from '../memory/ledger.js';
import type { Strategy } from '../spec/strategy.js';
import { estimateTime } from './estimateTime.js';
import { estimateMemory } from './evaluate.js';
import type { Setting } from './setting.js';

/** Of a setting, which is the caller's own but where a change is tried to explain a misfit. */
export interface Evaluator {
  readonly memory: (setting: Setting, strategy: Strategy) => MemoryLedger;
  /** Of one optimizer step. */
  readonly seconds: (setting: Setting, strategy: Strategy) => number;
  /** Of them, what computing alone takes: no strategy that computes as much is faster. */
  readonly computeSeconds: (setting: Setting, strategy: Strategy) => number;
}

/** Both in time that does not grow with the number of chunks; a strategy is estimated once. */
export function estimator(): Evaluator {
  const memories = new Map<string, MemoryLedger>();
  const times = new Map<string, ReturnType<typeof estimateTime>>();
  const time = (setting: Setting, strategy: Strategy): ReturnType<typeof estimateTime> =>
    known(times, setting, strategy, () => estimateTime(setting, strategy));
  return {
    memory: (setting, strategy) => known(memories, setting, strategy, () => estimateMemory(setting, strategy)),
    seconds: (setting, strategy) => time(setting, strategy).seconds,
    computeSeconds: (setting, strategy) => time(setting, strategy).computeSeconds,
  };
}

/** For whom it is enough that something fits: every strategy takes as long as any other. */
export function memoryEstimator(): Evaluator {
  return { ...estimator(), seconds: () => 0, computeSeconds: () => 0 };
}

const settings = new WeakMap<Setting, number>();
let numSettings = 0;

function known<T>(found: Map<string, T>, setting: Setting, strategy: Strategy, make: () => T): T {
  const number = settings.get(setting) ?? numSettings++;
  settings.set(setting, number);
  const key = `${number} ${JSON.stringify(strategy)}`;
  const value = found.get(key) ?? make();
  found.set(key, value);
  return value;
}
