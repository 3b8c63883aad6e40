/** Plans that would be too large to hold are refused before they are built. */
import { type LayerClass, layerPlan } from '../schedule/policies/layerClasses.js';
import { mostRangeChunks } from '../schedule/policies/index.js';
import { FpdtError } from '../spec/errors.js';
import { RECOMPUTE, type Strategy } from '../spec/strategy.js';
import type { Setting } from './setting.js';

/** Ops of all sections; an op takes a few hundred bytes on the controller and on every rank. */
export const MAX_OPS = 2_000_000;

export function refuseTooManyOps(setting: Pick<Setting, 'model' | 'parameters' | 'places'>, strategy: Strategy): void {
  const numOps = (kvTileChunks: number): number => estimateOps(setting, { ...strategy, kvTileChunks });
  if (numOps(strategy.kvTileChunks) <= MAX_OPS) return;
  let tile = strategy.kvTileChunks;
  while (tile < strategy.numChunks && numOps(tile) > MAX_OPS) tile *= 2;
  const hint =
    numOps(tile) <= MAX_OPS ? `use kvTileChunks=${tile}, which fetches ${tile} chunks of k, v at a time` : 'use fewer chunks (numChunks)';
  throw new FpdtError(`the plan would have about ${numOps(strategy.kvTileChunks)} ops, more than the ${MAX_OPS} that a plan may have`, {
    code: 'plan-too-large',
    hint,
    details: { numChunks: strategy.numChunks, kvTileChunks: strategy.kvTileChunks },
  });
}

export function hasTooManyOps(setting: Pick<Setting, 'model' | 'parameters' | 'places'>, strategy: Strategy): boolean {
  return estimateOps(setting, strategy) > MAX_OPS;
}

/** Ops of all sections together, not fewer than there are: where a kernel has rectangles some are not needed. */
export function estimateOps(
  { model, parameters, places }: Pick<Setting, 'model' | 'parameters' | 'places'>,
  strategy: Strategy,
  rangeChunks = mostRangeChunks(strategy),
): number {
  const { headGroups = 1 } = strategy;
  const { classes, classOf, rebuiltOf } = layerPlan({ strategy, model, parameters });
  const inBackward = new Set(classOf.map((one, layer) => rebuiltOf[layer] ?? one));
  const hops = (pool: string): number => places.route(pool).length - 1;
  const last = hops(strategy.layers.at(-1)?.checkpoints ?? '');
  const stash = last === 0 ? 0 : STASH_PER_CHUNK + STASH_COPIES * (last + hops(strategy.hiddenGradients));
  const ends = OPS_OF_ENDS + strategy.numChunks * (ENDS_PER_CHUNK + ENDS_COPIES * hops(strategy.hiddenGradients) + stash);
  return classes.reduce((sum, layer) => {
    const pairs = numPairs(strategy, layer.window, strategy.kvTileChunks);
    const ranges = opsOfRanges(layer, strategy, rangeChunks, hops);
    if (!inBackward.has(layer)) {
      const forward = forwardPerChunk(layer, hops) * strategy.numChunks + forwardPerPair(layer, hops) * pairs + ranges.forward;
      return sum + headGroups * forward;
    }
    const perChunk =
      opsPerChunk(layer, hops) +
      DX_COPIES * hops(strategy.hiddenGradients) +
      (headGroups === 1 ? 0 : layer.savesOutput ? IN_GROUPS : RERUN_IN_GROUPS);
    const numForward = layer.savesOutput ? 1 : 2;
    const perPair = numForward * forwardPerPair(layer, hops) + backwardPerPair(layer, hops);
    const ofGroup = perChunk * strategy.numChunks + perPair * pairs + numForward * ranges.forward + ranges.backward;
    return sum + OPS_PER_CLASS + headGroups * ofGroup;
  }, ends);
}

/** Embedding, loss, its correction and the embedding's backward; they write dx, correct it and read it. */
const ENDS_PER_CHUNK = 4;
const ENDS_COPIES = 4;
/** The last layer's input goes to dx's place and back. */
const STASH_PER_CHUNK = 3;
const STASH_COPIES = 2;
/** Batch, zeros, gradients handed over, and what is ZeRO's. */
const OPS_OF_ENDS = 12;
const OPS_PER_CLASS = 6;
/** Backward adds to dx once or twice. */
const DX_COPIES = 4;
/** On top, of each group of heads: its part of the output comes and goes; where it is formed again, for all chunks before backward. */
const IN_GROUPS = 3;
const RERUN_IN_GROUPS = 8;

type Hops = (pool: string) => number;

/**
 * Ops on each chunk of queries but for those on each tile of keys: forward, rerun and backward with two attention ops each, three of
 * merging; rebuilding, and moving hidden states to another range's pool. Layer inputs are copied once forward and up to three times
 * backward, outputs and products once a direction, what a ring of the ascending order passes on once.
 */
function opsPerChunk(
  { savesOutput, rebuilds, checkpoints, attentionOutput, internals, keyValues, keyValueGradients }: LayerClass,
  hops: Hops,
): number {
  return (
    (savesOutput ? 20 : 25) +
    (rebuilds ? 2 : 0) +
    (7 + (rebuilds ? 2 : 0)) * hops(checkpoints) +
    (savesOutput ? (5 + (rebuilds ? 1 : 0)) * hops(attentionOutput) : 0) +
    (internals === RECOMPUTE ? 0 : (2 + (rebuilds ? 1 : 0)) * hops(internals)) +
    9 * hops(keyValues) +
    2 * hops(keyValueGradients)
  );
}

/** The same of forward alone, of layers that go backward as another class. */
function forwardPerChunk({ checkpoints, keyValues }: LayerClass, hops: Hops): number {
  return 9 + 4 * hops(checkpoints) + 2 * hops(keyValues);
}

/** k and v are fetched, attended to and merged; once more where backward forms outputs again. */
function forwardPerPair({ keyValues }: LayerClass, hops: Hops): number {
  return hops(keyValues) === 0 ? 0 : 2 + 2 * hops(keyValues);
}

/** What backward moves hangs on its order. */
function backwardPerPair({ keyValues, keyValueGradients, savesOutput, attentionOutput, backwardOrder }: LayerClass, hops: Hops): number {
  if (backwardOrder === 'keyValueOuterAscending') {
    const output = hops(savesOutput ? attentionOutput : keyValues);
    return 1 + 4 * hops(keyValues) + 2 * output;
  }
  const moved = 2 * hops(keyValues) + 4 * hops(keyValueGradients);
  return moved === 0 ? 0 : 1 + moved;
}

/** What comes on top where ranges of keys are bounded: an op for each more of them and direction, and in forward its merge. */
function opsOfRanges(
  { keyValues, keyValueGradients, backwardOrder, window }: LayerClass,
  strategy: Strategy,
  most: number,
  hops: Hops,
): { readonly forward: number; readonly backward: number } {
  const { numChunks, kvTileChunks } = strategy;
  const inTiles = numPairs(strategy, window, kvTileChunks) * (Math.ceil(kvTileChunks / most) - 1);
  const atHand = numPairs(strategy, window, Math.min(most, numChunks)) - numChunks;
  const isTiled = backwardOrder === 'keyValueOuterAscending' || hops(keyValues) + hops(keyValueGradients) > 0;
  return { forward: 2 * (hops(keyValues) > 0 ? inTiles : atHand), backward: isTiled ? inTiles : atHand };
}

/** Tiles of keys that each chunk of queries meets, summed; in a window no more than it reaches. */
function numPairs({ numChunks, chunkTokens }: Strategy, window: number | null, tile: number): number {
  const whole = Math.floor(numChunks / tile);
  const rest = numChunks - whole * tile;
  const all = (tile * whole * (whole + 1)) / 2 + rest * (whole + 1);
  return window === null ? all : Math.min(all, numChunks * (2 + Math.ceil((window - 1) / (tile * chunkTokens))));
}
