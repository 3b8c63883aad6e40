/** Chooses a strategy: candidates in order of preference, the first that fits; no clock, no randomness. */
import type { MemoryLedger } from '../memory/ledger.js';
import { explainMisfit } from '../memory/misfit.js';
import { formatBytes } from '../spec/sizes.js';
import type { Strategy } from '../spec/strategy.js';
import { candidates } from './candidates.js';
import { changes } from './changes.js';
import { type BuildInput, type Setting, settingOf } from './setting.js';

/** The memory of a strategy for a setting, which is the caller's own but where a change is tried to explain a misfit. */
export type Evaluate = (strategy: Strategy, setting: Setting) => MemoryLedger;

/** The first strategy that fits. Throws `does-not-fit` with the smallest change that would. */
export function solveStrategy(input: BuildInput, evaluate: Evaluate): Strategy {
  const found = search(settingOf(input), evaluate);
  if (found.memory.fits) return found.strategy;
  throw explainMisfit(found.memory, suggest(input, evaluate));
}

interface Evaluated {
  readonly strategy: Strategy;
  readonly memory: MemoryLedger;
}

/** The first placement that fits, with the fewest chunks that do; where none fits what misses by least. */
function search(setting: Setting, evaluate: Evaluate): Evaluated {
  let closest: Evaluated | undefined;
  for (const placement of candidatesFor(setting)) {
    const found = fewestChunks(placement, setting, evaluate);
    if (found === undefined) continue;
    if (found.memory.fits) return found;
    if (closest === undefined || excess(found.memory) < excess(closest.memory)) closest = found;
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
function fewestChunks(placement: readonly Strategy[], setting: Setting, evaluate: Evaluate): Evaluated | undefined {
  const look = (strategy: Strategy): Evaluated => ({ strategy, memory: evaluate(strategy, setting) });
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
  return pools.reduce((sum, { peakBytes, capacityBytes }) => sum + Math.max(0, peakBytes - capacityBytes), 0);
}

/** A quick look: does any placement fit with the most chunks? Memory falls with their number. */
function mayFit(setting: Setting, evaluate: Evaluate): boolean {
  return candidatesFor(setting).some((placement) => evaluate(placement.at(-1) as Strategy, setting).fits);
}

/** The first change, in order of how little it asks for, under which something fits. */
function suggest(input: BuildInput, evaluate: Evaluate): string | undefined {
  for (const change of changes(input)) {
    const setting = settingOf(change.input);
    if (!mayFit(setting, evaluate)) continue;
    const { strategy, memory } = search(setting, evaluate);
    if (!memory.fits) continue;
    const used = memory.pools.map(
      ({ pool, peakBytes, capacityBytes }) => `${pool} ${formatBytes(peakBytes)} of ${formatBytes(capacityBytes)}`,
    );
    return `${change.name(strategy)} fits: ${used.join(', ')}`;
  }
  return undefined;
}
