/** Strategies that need little memory. */
import { RECOMPUTE, type Strategy } from '../../spec/strategy.js';
import { chunkCounts } from '../candidates.js';
import type { Setting } from '../setting.js';
import { assembleUniform, pinnedPool } from './assemble.js';
import type { FilledSegment } from './fill.js';
import { frames } from './frames.js';
import { groupCounts, inGroups } from './groups.js';

/**
 * What needs least memory of each pool: as many chunks as there can be, outputs recomputed or kept on the host, checkpoints as far
 * apart as there are of them, since the states inside a segment need room too, and heads at once or in as many groups as there can be.
 */
export function leanest(setting: Setting): readonly Strategy[] {
  const pinned = pinnedPool(setting);
  const numChunks = chunkCounts(setting.run).at(-1) ?? 1;
  const length = setting.run.segmentLayers ?? Math.ceil(Math.sqrt(setting.model.numLayers));
  const kept = [RECOMPUTE, pinned].map((attentionOutput): FilledSegment => ({ length, checkpoints: pinned, attentionOutput }));
  const most = groupCounts(setting).slice(-1);
  return [setting, ...most.map((headGroups) => inGroups(setting, headGroups))].flatMap((one) =>
    frames(one).flatMap((frame) => kept.map((segment) => assembleUniform(one, frame, numChunks, segment))),
  );
}

/** Of them what needs least of one pool, roughly: enough to say how much is missing where nothing fits. */
export function leanestOfAll(setting: Setting): readonly Strategy[] {
  return leanest(setting).filter(
    (strategy) => strategy.layers[0]?.attentionOutput === RECOMPUTE && amountOnDevice(strategy, setting) !== 'some',
  );
}

/** How much of what is there for a whole layer is on the device: keys and values, their gradients, and that of hidden states. */
export type Amount = 'none' | 'all' | 'some';

/** In the ascending order gradients of keys and values are a ring. */
export function amountOnDevice({ hiddenGradients, layers: [layer] }: Strategy, { places }: Setting): Amount {
  const isRing = layer?.backwardOrder === 'keyValueOuterAscending';
  const homes = [layer?.keyValues, ...(isRing ? [] : [layer?.keyValueGradients]), hiddenGradients];
  if (homes.every((home) => home === places.device)) return 'all';
  return homes.includes(places.device) ? 'some' : 'none';
}
