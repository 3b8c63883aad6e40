/** Strategies worth trying: a policy's placements and chunk counts, with every choice that the user forced put in their place. */
import { DTYPE_BYTES } from '../spec/dtype.js';
import { FpdtError } from '../spec/errors.js';
import { padSeqLen } from '../spec/sizes.js';
import { type BackwardOrder, type ForcedLayerStrategy, type LayerStrategy, type Strategy, segmentLengths } from '../spec/strategy.js';
import type { RunSpec } from '../spec/types.js';
import { type CandidateInput, type LayerPlacement, POLICIES, type PoolNames } from './policies/index.js';

/**
 * Each inner list is one placement, fewest chunks first. Throws `invalid-value` where no number of chunks leaves room for a forced
 * tile.
 */
export function candidates(input: CandidateInput): readonly (readonly Strategy[])[] {
  const { run, pools } = input;
  const counts = chunkCounts(run);
  const layers = POLICIES[run.policy].placements(pools).map((placement) => layersOf(placement, input));
  return distinct(layers).map((placed) => counts.map((numChunks) => toStrategy(input, placed, numChunks)));
}

/** Numbers of chunks that the run's policy tries, or the user's own. Throws as `candidates` does. */
export function chunkCounts(run: RunSpec): readonly number[] {
  return countsWithRoom(run, run.numChunks === undefined ? POLICIES[run.policy].chunkCounts(run) : [run.numChunks]);
}

/** Numbers of chunks of which a forced tile has no more than there are, nor pieces than a rank has tokens of one. */
function countsWithRoom(run: RunSpec, counts: readonly number[]): readonly number[] {
  const { kvTileChunks = 1, numLossTiles = 1, numTokenTiles = 1 } = run;
  const ofChunks = counts.filter((numChunks) => kvTileChunks <= numChunks);
  if (ofChunks.length === 0) throw noRoom('kvTileChunks', kvTileChunks, Math.max(...counts), 'chunks there can be');
  const most = (numChunks: number): number => localChunkTokens(run, numChunks);
  const fitting = ofChunks.filter((numChunks) => Math.max(numLossTiles, numTokenTiles) <= most(numChunks));
  if (fitting.length > 0) return fitting;
  const [knob, tiles] =
    numLossTiles > numTokenTiles ? (['numLossTiles', numLossTiles] as const) : (['numTokenTiles', numTokenTiles] as const);
  throw noRoom(knob, tiles, Math.max(...ofChunks.map(most)), 'tokens that a rank has of a chunk');
}

function noRoom(knob: string, found: number, most: number, of: string): FpdtError {
  return new FpdtError(`${knob} ${found} is more than the ${most} ${of}`, {
    code: 'invalid-value',
    hint: `${knob} can be at most ${most}`,
  });
}

/** Placements that differ only in what is forced are one. */
function distinct(placements: readonly (readonly LayerStrategy[])[]): readonly (readonly LayerStrategy[])[] {
  return [...new Map(placements.map((layers) => [JSON.stringify(layers), layers])).values()];
}

function layersOf(placement: LayerPlacement, { model, run, pools }: CandidateInput): readonly LayerStrategy[] {
  const forced: readonly ForcedLayerStrategy[] = run.strategy?.layers ?? [{ layers: [0, model.numLayers] }];
  return forced.map((range) => {
    const [start, end] = range.layers;
    const chosen = range.backwardOrder === undefined ? { ...placement, backwardOrder: orderFor(range, placement, run, pools) } : placement;
    return { ...chosen, segments: segmentLengths(end - start, run.segmentLayers ?? 1), ...range };
  });
}

/**
 * The ascending order keeps gradients of k, v on the device, and goes through keys for all heads at once: where the user wants something
 * else, a policy's order gives way.
 */
function orderFor(
  { keyValueGradients }: ForcedLayerStrategy,
  { backwardOrder }: LayerPlacement,
  { headGroups = 1 }: RunSpec,
  { device }: PoolNames,
): BackwardOrder {
  if (headGroups > 1) return 'queryOuterDescending';
  return keyValueGradients === undefined || keyValueGradients === device ? backwardOrder : 'queryOuterDescending';
}

/** A strategy of these layers with the run's own counts, and defaults where it has none. */
export function toStrategy({ model, run, pools }: CandidateInput, layers: readonly LayerStrategy[], numChunks: number): Strategy {
  const policy = POLICIES[run.policy];
  const localTokens = localChunkTokens(run, numChunks);
  const logitsBytes = localTokens * model.vocabSize * DTYPE_BYTES.float32;
  return {
    kind: 'strategy',
    policy: run.policy,
    numChunks,
    chunkTokens: localTokens * run.sequenceParallelSize,
    localChunkTokens: localTokens,
    kvTileChunks: run.kvTileChunks ?? 1,
    numLossTiles: run.numLossTiles ?? Math.min(localTokens, policy.lossTiles(logitsBytes)),
    numTokenTiles: run.numTokenTiles ?? policy.tokenTiles(localTokens, model.hiddenSize),
    prefetchDepth: run.prefetchDepth,
    ...(run.headGroups === undefined || run.headGroups === 1 ? {} : { headGroups: run.headGroups }),
    hiddenGradients: run.strategy?.hiddenGradients ?? pools.device,
    layers,
  };
}

function localChunkTokens(run: RunSpec, numChunks: number): number {
  return padSeqLen(run, numChunks) / numChunks / run.sequenceParallelSize;
}
