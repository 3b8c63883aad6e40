/** Chooses a strategy: the fastest that fits, or a policy's own, or what misses by least; no clock, no randomness. */
import { excessBytes, type MemoryLedger } from '../memory/ledger.js';
import type { Strategy } from '../spec/strategy.js';
import { candidates } from './candidates.js';
import type { Evaluator } from './evaluator.js';
import { type Evaluated, keepRebuilt } from './keepRebuilt.js';
import { leanest, searchAll } from './search/searchAll.js';
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
function isOpen({ run }: Setting): boolean {
  return run.policy === 'auto' && run.strategy?.layers === undefined;
}

/** The first placement that fits, with the fewest chunks that do; where none fits what misses by least. */
function firstThatFits(setting: Setting, evaluate: Evaluator): Evaluated {
  let closest: Evaluated | undefined;
  for (const placement of candidatesFor(setting)) {
    const found = fewestChunks(placement, setting, evaluate);
    if (found === undefined) continue;
    if (found.memory.fits) return found;
    if (closest === undefined || excess(found.memory) < excess(closest.memory)) closest = found;
  }
  for (const strategy of isOpen(setting) ? leanest(setting) : []) {
    const memory = evaluate.memory(setting, strategy);
    if (memory.fits) return { strategy, memory };
    if (closest === undefined || excess(memory) < excess(closest.memory)) closest = { strategy, memory };
  }
  if (closest === undefined) throw new RangeError('no candidate strategy');
  return closest;
}

function candidatesFor({ model, run, pools, places }: Setting): readonly (readonly Strategy[])[] {
  const pinned = pools.find(({ kind }) => kind === 'pinned')?.name ?? places.device;
  return candidates({ model, run, pools: { device: places.device, pinned } });
}

/**
 * The fewest chunks of a placement that fit; its most chunks where none do. More chunks never need more memory, so a placement
 * whose most chunks do not fit is given up after two looks.
 */
function fewestChunks(placement: readonly Strategy[], setting: Setting, evaluate: Evaluator): Evaluated | undefined {
  const look = (strategy: Strategy): Evaluated => ({ strategy, memory: evaluate.memory(setting, strategy) });
  const [fewest, ...more] = placement;
  const most = more.pop();
  if (fewest === undefined) return undefined;
  const first = look(fewest);
  if (first.memory.fits || most === undefined) return first;
  const last = look(most);
  if (!last.memory.fits) return last;
  for (const strategy of more) {
    const found = look(strategy);
    if (found.memory.fits) return found;
  }
  return last;
}

function excess({ pools }: MemoryLedger): number {
  return pools.reduce((sum, pool) => sum + excessBytes(pool), 0);
}

/** A quick look: does what needs least fit, or any placement with the most chunks? Memory falls with their number. */
export function mayFit(setting: Setting, evaluate: Evaluator): boolean {
  if (evaluate.isHopeless(setting)) return false;
  const fits = (strategy: Strategy): boolean => evaluate.memory(setting, strategy).fits;
  return (isOpen(setting) && leanest(setting).some(fits)) || candidatesFor(setting).some((placement) => fits(placement.at(-1) as Strategy));
}
