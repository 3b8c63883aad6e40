/** Strategies that a user might force: drawn at random, and those one knob away from one that is given. */
import { BACKWARD_ORDERS, type LayerStrategy, type Strategy, segmentLengths } from '../src/spec/strategy.js';
import { placesOf } from '../src/spec/strategyPlaces.js';
import { toStrategy } from '../src/strategy/candidates.js';
import type { Evaluator } from '../src/strategy/evaluator.js';
import { pinnedPool } from '../src/strategy/search/assemble.js';
import type { Setting } from '../src/strategy/setting.js';

const COUNTS = [1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256];
const TILES = [1, 1, 2, 4];
const LENGTHS = [1, 1, 2, 3, 4];
/** Strategies that are looked at for one that fits. */
const TRIES = 20;

/** Up to `count` that fit, of one range of layers or two. */
export function drawStrategies(setting: Setting, evaluate: Evaluator, random: () => number, count: number): readonly Strategy[] {
  const found: Strategy[] = [];
  for (let tries = 0; found.length < count && tries < TRIES * count; tries++) {
    const strategy = draw(setting, random);
    if (evaluate.memory(setting, strategy).fits) found.push(strategy);
  }
  return found;
}

function draw(setting: Setting, random: () => number): Strategy {
  const { model, run, pools, places } = setting;
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  const descending = random() < 2 / 3 || model.windows.some((window) => window !== null);
  const range = (start: number, end: number): LayerStrategy => ({
    layers: [start, end],
    keyValues: pick(placesOf('keyValues', pools)),
    keyValueGradients: descending ? pick(placesOf('keyValueGradients', pools)) : places.device,
    attentionOutput: pick(placesOf('attentionOutput', pools)),
    checkpoints: pick(placesOf('checkpoints', pools)),
    backwardOrder: BACKWARD_ORDERS[descending ? 0 : 1],
    segments: segmentLengths(end - start, pick(LENGTHS)),
  });
  const cut = Math.floor(random() * model.numLayers);
  const layers = cut === 0 ? [range(0, model.numLayers)] : [range(0, cut), range(cut, model.numLayers)];
  const numChunks = pick(COUNTS.filter((one) => one <= run.seqLen / run.sequenceParallelSize));
  const strategy = toStrategy({ model, run, pools: { device: places.device, pinned: pinnedPool(setting) } }, layers, numChunks);
  return {
    ...strategy,
    kvTileChunks: pick(TILES.filter((tile) => tile <= numChunks)),
    hiddenGradients: pick(placesOf('hiddenGradients', pools)),
  };
}

/** Every knob of a strategy, moved by one. Places are moved in each range alone. */
export function oneKnobAway(setting: Setting, strategy: Strategy): readonly Strategy[] {
  const { model, run, pools, places } = setting;
  const recount = (numChunks: number): Strategy => {
    const made = toStrategy({ model, run, pools: { device: places.device, pinned: pinnedPool(setting) } }, strategy.layers, numChunks);
    return { ...made, kvTileChunks: Math.min(strategy.kvTileChunks, numChunks), hiddenGradients: strategy.hiddenGradients };
  };
  const { numChunks, kvTileChunks, numTokenTiles, numLossTiles, prefetchDepth, localChunkTokens } = strategy;
  const around = (count: number, most: number): readonly number[] =>
    [...new Set([Math.floor(count / 2), count - 1, count + 1, 2 * count])].filter((one) => one >= 1 && one <= most && one !== count);
  const inRange = (at: number, change: Partial<LayerStrategy>): Strategy => ({
    ...strategy,
    layers: strategy.layers.map((range, i) => (i === at ? { ...range, ...change } : range)),
  });
  const ofRanges = strategy.layers.flatMap(({ layers: [start, end], backwardOrder, segments }, at) => [
    ...(['keyValues', 'attentionOutput', 'checkpoints'] as const).flatMap((knob) =>
      placesOf(knob, pools).map((place) => inRange(at, { [knob]: place })),
    ),
    ...placesOf('keyValueGradients', pools)
      .filter((place) => backwardOrder === 'queryOuterDescending' || place === places.device)
      .map((keyValueGradients) => inRange(at, { keyValueGradients })),
    ...around(segments[0] ?? 1, end - start).map((length) => inRange(at, { segments: segmentLengths(end - start, length) })),
  ]);
  return [
    ...around(numChunks, run.seqLen / run.sequenceParallelSize).map(recount),
    ...around(kvTileChunks, numChunks).map((count) => ({ ...strategy, kvTileChunks: count })),
    ...around(numTokenTiles, localChunkTokens).map((count) => ({ ...strategy, numTokenTiles: count })),
    ...around(numLossTiles, localChunkTokens).map((count) => ({ ...strategy, numLossTiles: count })),
    ...around(prefetchDepth, numChunks).map((count) => ({ ...strategy, prefetchDepth: count })),
    ...placesOf('hiddenGradients', pools).map((hiddenGradients) => ({ ...strategy, hiddenGradients })),
    ...ofRanges,
  ].filter((one) => JSON.stringify(one) !== JSON.stringify(strategy));
}
