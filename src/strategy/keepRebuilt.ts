/**
 * Where attention outputs are recomputed and segments rebuilt, the rebuild may keep them for the backward that follows: else attention of
 * all but a segment's last layer runs three times. The rule for what is left open: on the device where there is room beside the rest, else
 * in pinned memory where there is room and copying is faster than computing.
 */
import type { MemoryLedger } from '../memory/ledger.js';
import { type LayerStrategy, RECOMPUTE, type Strategy } from '../spec/strategy.js';
import type { Evaluator } from './evaluator.js';
import type { Setting } from './setting.js';

export interface Evaluated {
  readonly strategy: Strategy;
  readonly memory: MemoryLedger;
}

export function keepRebuilt(setting: Setting, found: Evaluated, evaluate: Evaluator): Evaluated {
  if (!found.memory.fits || !found.strategy.layers.some(isOpen)) return found;
  for (const { name, kind } of setting.pools) {
    if (kind === 'file') continue;
    const strategy = { ...found.strategy, layers: found.strategy.layers.map((range) => keptIn(name, range)) };
    const memory = evaluate.memory(setting, strategy);
    if (!memory.fits) continue;
    if (kind === 'device' || evaluate.seconds(setting, strategy) < evaluate.seconds(setting, found.strategy)) return { strategy, memory };
  }
  return found;
}

/** Pools are the device's first. */
function keptIn(pool: string, range: LayerStrategy): LayerStrategy {
  return isOpen(range) ? { ...range, rebuiltOutput: pool } : range;
}

function isOpen({ attentionOutput, rebuiltOutput, segments }: LayerStrategy): boolean {
  return attentionOutput === RECOMPUTE && rebuiltOutput === undefined && segments.some((length) => length > 1);
}
