/** What the solver asks of a strategy. */
import type { MemoryLedger } from '../memory/ledger.js';
import type { Strategy } from '../spec/strategy.js';
import { estimateComputing } from './estimateComputing.js';
import { estimateMemory } from './estimateMemory.js';
import { estimateTime, estimateTimeSoon } from './estimateTime.js';
import { isHopeless } from './hopeless.js';
import { perSetting } from './perSetting.js';
import type { Setting } from './setting.js';

/** Of a setting, which is the caller's own but where a change is tried to explain a misfit. */
export interface Evaluator {
  readonly memory: (setting: Setting, strategy: Strategy) => MemoryLedger;
  /** Of one optimizer step; where it takes `enoughSeconds` or longer it may be told less, but not less than these. */
  readonly seconds: (setting: Setting, strategy: Strategy, enoughSeconds?: number) => number;
  /** The same, soon known of any number of chunks. */
  readonly secondsSoon: (setting: Setting, strategy: Strategy) => number;
  /** Of them, what computing alone takes: no strategy that computes as much is faster. */
  readonly computeSeconds: (setting: Setting, strategy: Strategy) => number;
  /** Whether no strategy fits, at a glance; false says nothing. */
  readonly isHopeless: (setting: Setting) => boolean;
}

/** Both in time that does not grow with the number of chunks; a strategy is estimated once. */
export function estimator(): Evaluator {
  return {
    memory: remembered(estimateMemory),
    seconds: rememberedBelow((setting, strategy, enoughSeconds) => estimateTime(setting, strategy, { enoughSeconds })),
    secondsSoon: remembered(estimateTimeSoon),
    computeSeconds: remembered(estimateComputing),
    isHopeless,
  };
}

/** For whom it is enough that something fits: every strategy takes as long as any other. */
export function memoryEstimator(): Evaluator {
  return { ...estimator(), seconds: () => 0, computeSeconds: () => 0 };
}

function remembered<T>(estimate: (setting: Setting, strategy: Strategy) => T): (setting: Setting, strategy: Strategy) => T {
  const knownOf = perSetting(() => new Map<string, T>());
  return (setting, strategy) => {
    const known = knownOf(setting);
    const key = JSON.stringify(strategy);
    const found = known.get(key) ?? estimate(setting, strategy);
    known.set(key, found);
    return found;
  };
}

/** What may be told less than it is is asked for again. */
function rememberedBelow(estimate: (setting: Setting, strategy: Strategy, enough: number) => number): Evaluator['seconds'] {
  const knownOf = perSetting(() => new Map<string, number>());
  return (setting, strategy, enough = Number.POSITIVE_INFINITY) => {
    const known = knownOf(setting);
    const key = JSON.stringify(strategy);
    const found = known.get(key) ?? estimate(setting, strategy, enough);
    if (found < enough) known.set(key, found);
    return found;
  };
}
