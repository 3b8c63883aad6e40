/** Strategies that a user might force, drawn at random. */
import { headGroupCounts } from '../src/spec/parallelLayout.js';
import { BACKWARD_ORDERS, type LayerStrategy, RECOMPUTE, type Strategy, segmentLengths } from '../src/spec/strategy.js';
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
  const { model, run, pools, places, layout } = setting;
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  const descending = random() < 2 / 3 || model.windows.some((window) => window !== null);
  const range = (start: number, end: number): LayerStrategy => ({
    layers: [start, end],
    keyValues: pick(placesOf('keyValues', pools)),
    keyValueGradients: descending ? pick(placesOf('keyValueGradients', pools)) : places.device,
    attentionOutput: pick(placesOf('attentionOutput', pools)),
    internals: random() < 1 / 2 ? RECOMPUTE : pick(placesOf('internals', pools)),
    checkpoints: pick(placesOf('checkpoints', pools)),
    backwardOrder: BACKWARD_ORDERS[descending ? 0 : 1],
    segments: segmentLengths(end - start, pick(LENGTHS)),
  });
  const cut = Math.floor(random() * model.numLayers);
  const layers = cut === 0 ? [range(0, model.numLayers)] : [range(0, cut), range(cut, model.numLayers)];
  const numChunks = pick(COUNTS.filter((one) => one <= run.seqLen / run.sequenceParallelSize));
  const strategy = toStrategy({ model, run, pools: { device: places.device, pinned: pinnedPool(setting) } }, layers, numChunks);
  const headGroups = descending ? pick(headGroupCounts(layout)) : 1;
  return {
    ...strategy,
    ...(headGroups === 1 ? {} : { headGroups }),
    kvTileChunks: pick(TILES.filter((tile) => tile <= numChunks)),
    hiddenGradients: pick(placesOf('hiddenGradients', pools)),
  };
}
