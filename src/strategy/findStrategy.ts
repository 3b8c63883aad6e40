/** Chooses a strategy: the fastest that fits, or a policy's own, or what misses by least; no clock, no randomness. */
import { excessBytes, type MemoryLedger } from '../memory/ledger.js';
import type { Strategy } from '../spec/strategy.js';
import { candidates } from './candidates.js';
import type { Evaluator } from './evaluator.js';
import { type Evaluated, keepRebuilt } from './keepRebuilt.js';
import { pinnedPool } from './search/assemble.js';
import { leanest, leanestOfAll } from './search/leanest.js';
import { searchAll } from './search/searchAll.js';
import { type BuildInput, type Setting, settingOf } from './setting.js';
import { finish, type Steps } from './steps.js';

export type { Evaluated } from './keepRebuilt.js';

/** The strategy to train with; where none fits what misses by least, and no change is looked for. */
export function findStrategy(input: BuildInput, evaluate: Evaluator): Evaluated {
  return finish(findIn(settingOf(input), evaluate));
}

export function* findIn(setting: Setting, evaluate: Evaluator): Steps<Evaluated> {
  const searched = isOpen(setting) && !evaluate.isHopeless(setting) ? yield* searchAll(setting, evaluate) : undefined;
  return keepRebuilt(setting, searched ?? firstThatFits(setting, evaluate), evaluate);
}

/** Whether the solver chooses what each layer keeps. */
export function isOpen({ run }: Setting): boolean {
  return run.policy === 'auto' && run.strategy?.layers === undefined;
}

/** The first placement that fits, with the fewest chunks that do; where none fits what misses by least. */
function firstThatFits(setting: Setting, evaluate: Evaluator): Evaluated {
  const isLost = isOpen(setting) && evaluate.isHopeless(setting);
  let closest: Evaluated | undefined;
  for (const placement of isLost ? [] : candidatesFor(setting)) {
    const found = fewestChunks(placement, setting, evaluate);
    if (found === undefined) continue;
    if (found.memory.fits) return found;
    if (closest === undefined || excess(found.memory) < excess(closest.memory)) closest = found;
  }
  const lean = isLost ? leanestOfAll : leanest;
  for (const strategy of isOpen(setting) ? lean(setting) : []) {
    const memory = evaluate.memory(setting, strategy);
    if (memory.fits) return { strategy, memory };
    if (closest === undefined || excess(memory) < excess(closest.memory)) closest = { strategy, memory };
  }
  if (closest === undefined) throw new RangeError('no candidate strategy');
  return closest;
}

export function candidatesFor(setting: Setting): readonly (readonly Strategy[])[] {
  const { model, run, places } = setting;
  return candidates({ model, run, pools: { device: places.device, pinned: pinnedPool(setting) } });
}

/**
 * The fewest chunks of a placement that fit; its most chunks where none do. More chunks never need more memory. A policy's fewest fit
 * mostly; where the solver was asked first, it found nothing, and the most are looked at at once.
 */
function fewestChunks(placement: readonly Strategy[], setting: Setting, evaluate: Evaluator): Evaluated | undefined {
  const look = (strategy: Strategy): Evaluated => ({ strategy, memory: evaluate.memory(setting, strategy) });
  const [fewest, most] = [placement[0], placement.at(-1)];
  if (fewest === undefined || most === undefined) return undefined;
  const first = isOpen(setting) ? undefined : look(fewest);
  if (first?.memory.fits === true) return first;
  let found = look(most);
  let [misfit, fitting] = [first === undefined ? -1 : 0, placement.length - 1];
  while (found.memory.fits && fitting - misfit > 1) {
    const at = Math.floor((misfit + fitting) / 2);
    const looked = look(placement[at] as Strategy);
    if (looked.memory.fits) [fitting, found] = [at, looked];
    else misfit = at;
  }
  return found;
}

function excess({ pools }: MemoryLedger): number {
  return pools.reduce((sum, pool) => sum + excessBytes(pool), 0);
}
