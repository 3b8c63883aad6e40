import { headGroupCounts } from '../../src/spec/parallelLayout.js';
import { type BackwardOrder, RECOMPUTE, type Strategy, segmentLengths } from '../../src/spec/strategy.js';
import { placesOf } from '../../src/spec/strategyPlaces.js';
import { toStrategy } from '../../src/strategy/candidates.js';
import type { Setting } from '../../src/strategy/setting.js';

/** One drawn at random, of one range of layers or two; it may not fit. */
export function drawStrategy({ model, run, pools, places, layout }: Setting, random: () => number): Strategy {
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  const order = pick<BackwardOrder>(['queryOuterDescending', 'queryOuterDescending', 'keyValueOuterAscending']);
  const cut = Math.floor(random() * model.numLayers);
  const range = (start: number, end: number) => ({
    layers: [start, end] as const,
    keyValues: pick(placesOf('keyValues', pools)),
    keyValueGradients: order === 'keyValueOuterAscending' ? places.device : pick(placesOf('keyValueGradients', pools)),
    attentionOutput: pick(placesOf('attentionOutput', pools)),
    internals: pick([RECOMPUTE, ...placesOf('internals', pools)]),
    checkpoints: pick(placesOf('checkpoints', pools)),
    backwardOrder: order,
    segments: segmentLengths(end - start, pick([1, 1, 2, 3])),
  });
  const layers = cut === 0 ? [range(0, model.numLayers)] : [range(0, cut), range(cut, model.numLayers)];
  const numChunks = pick([1, 2, 3, 4, 6, 8, 12, 16, 32]);
  const kvTileChunks = pick([1, 1, 2, 4].filter((tile) => tile <= numChunks));
  const headGroups = order === 'keyValueOuterAscending' ? 1 : pick(headGroupCounts(layout));
  return {
    ...toStrategy({ model, run, pools: { device: 'hbm', pinned: 'host' } }, layers, numChunks),
    kvTileChunks,
    ...(headGroups === 1 ? {} : { headGroups }),
    hiddenGradients: pick(placesOf('hiddenGradients', pools)),
  };
}
