/** A quick look at whether anything fits, which takes fewer estimates than to find what does. */
import type { Strategy } from '../spec/strategy.js';
import type { Evaluator } from './evaluator.js';
import { candidatesFor, isOpen } from './findStrategy.js';
import { type Amount, amountOnDevice, leanest } from './search/leanest.js';
import type { Setting } from './setting.js';

/**
 * Whether what needs least fits, or any placement with the most chunks: memory falls with their number. First comes what has none of a
 * layer's tensors on the device, and then what has all of them there: where the one has no room on the device, nothing of its order has, and
 * where the other has none elsewhere, nothing has.
 */
export function mayFit(setting: Setting, evaluate: Evaluator): boolean {
  if (evaluate.isHopeless(setting)) return false;
  const most = candidatesFor(setting).map((placement) => placement.at(-1) as Strategy);
  if (!isOpen(setting)) return most.some((strategy) => evaluate.memory(setting, strategy).fits);
  /** By order of what has none on the device, and of what has all there: whether any had room where the rest of it is. */
  const rooms = new Map<string | undefined, boolean>();
  const isFull = (part: string | undefined): boolean => rooms.get(part) === false;
  const note = (part: string | undefined, hasRoom: boolean): void => void rooms.set(part, hasRoom || rooms.get(part) === true);
  for (const { strategy, amount } of extremesFirst([...leanest(setting), ...most], setting)) {
    const order = strategy.layers[0]?.backwardOrder;
    const isStaged = strategy.numChunks >= MANY_CHUNKS;
    if (isStaged && ((amount !== 'none' && isFull(order)) || (amount === 'some' && isFull(ELSEWHERE)))) continue;
    const { fits, pools } = evaluate.memory(setting, strategy);
    if (fits) return true;
    const hasRoom = (isDevice: boolean): boolean => pools.every((pool) => pool.fits || (pool.kind === 'device') !== isDevice);
    if (amount === 'none') note(order, hasRoom(true));
    if (amount === 'all') note(ELSEWHERE, hasRoom(false));
  }
  return false;
}

/** Of so many a ring is smaller than what it stages. */
const MANY_CHUNKS = 16;

const ELSEWHERE = 'elsewhere';

interface Amounted {
  readonly strategy: Strategy;
  readonly amount: Amount;
}

function extremesFirst(strategies: readonly Strategy[], setting: Setting): readonly Amounted[] {
  const all = strategies.map((strategy): Amounted => ({ strategy, amount: amountOnDevice(strategy, setting) }));
  return (['none', 'all', 'some'] as const).flatMap((amount) => all.filter((one) => one.amount === amount));
}
