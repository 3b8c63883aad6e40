/**
 * Where attention outputs are recomputed and segments rebuilt, the rebuild may keep them for the backward that follows: else attention of
 * all but a segment's last layer runs three times. The rule for what is left open: on the device where there is room beside the rest, else
 * in pinned memory where there is room and copying is faster than computing. In the ascending order, where ops grow with the square of the
 * chunks, those of all layers instead, beside keys and values, as long as that is about as fast: as much memory as where backward forms
 * the last layer's there, and about half the ops.
 */
import type { MemoryLedger } from '../memory/ledger.js';
import { type LayerStrategy, RECOMPUTE, type Strategy } from '../spec/strategy.js';
import type { Evaluator } from './evaluator.js';
import type { Setting } from './setting.js';

export interface Evaluated {
  readonly strategy: Strategy;
  readonly memory: MemoryLedger;
}

/** Of the time that a plan of twice the ops takes. */
const ABOUT_AS_FAST = 1.002;

export function keepRebuilt(setting: Setting, found: Evaluated, evaluate: Evaluator): Evaluated {
  if (!found.memory.fits || !found.strategy.layers.some(isOpen)) return found;
  const kept = inOnePool(setting, found, evaluate);
  if (kept === undefined || !found.strategy.layers.some(mayRebuildLast)) return kept ?? found;
  const layers = found.strategy.layers.map((range, i) =>
    isOpen(range) && mayRebuildLast(range) ? ofAllLayers(range) : (kept.strategy.layers[i] ?? range),
  );
  const strategy = { ...kept.strategy, layers };
  const memory = evaluate.memory(setting, strategy);
  if (!memory.fits || evaluate.seconds(setting, strategy) > ABOUT_AS_FAST * evaluate.seconds(setting, kept.strategy)) return kept;
  return { strategy, memory };
}

/** The first that there is room in; undefined where none is worth it. Pools are the device's first. */
function inOnePool(setting: Setting, { strategy }: Evaluated, evaluate: Evaluator): Evaluated | undefined {
  for (const { name, kind } of setting.pools) {
    if (kind === 'file') continue;
    const kept = { ...strategy, layers: strategy.layers.map((range) => (isOpen(range) ? { ...range, rebuiltOutput: name } : range)) };
    const memory = evaluate.memory(setting, kept);
    if (!memory.fits) continue;
    if (kind === 'device' || evaluate.seconds(setting, kept) < evaluate.seconds(setting, strategy)) return { strategy: kept, memory };
  }
  return undefined;
}

function ofAllLayers(range: LayerStrategy): LayerStrategy {
  return { ...range, rebuiltOutput: range.keyValues, rebuildsLast: true };
}

function isOpen({ attentionOutput, rebuiltOutput, segments }: LayerStrategy): boolean {
  return attentionOutput === RECOMPUTE && rebuiltOutput === undefined && segments.some((length) => length > 1);
}

function mayRebuildLast({ backwardOrder, rebuildsLast = true }: LayerStrategy): boolean {
  return backwardOrder === 'keyValueOuterAscending' && rebuildsLast;
}
