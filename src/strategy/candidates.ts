/** Strategies worth trying: a policy's placements and chunk counts, with every choice that the user forced put in their place. */
import { DTYPE_BYTES } from '../spec/dtype.js';
import { padSeqLen } from '../spec/sizes.js';
import { type BackwardOrder, type ForcedLayerStrategy, type LayerStrategy, type Strategy, segmentLengths } from '../spec/strategy.js';
import { type CandidateInput, type LayerPlacement, POLICIES, type PoolNames } from './policies/index.js';

/** Each inner list is one placement, fewest chunks first. */
export function candidates(input: CandidateInput): readonly (readonly Strategy[])[] {
  const { run, pools } = input;
  const policy = POLICIES[run.policy];
  const counts = run.numChunks === undefined ? policy.chunkCounts(run) : [run.numChunks];
  const layers = policy.placements(pools).map((placement) => layersOf(placement, input));
  return distinct(layers).map((placed) => counts.map((numChunks) => toStrategy(input, placed, numChunks)));
}

/** Placements that differ only in what is forced are one. */
function distinct(placements: readonly (readonly LayerStrategy[])[]): readonly (readonly LayerStrategy[])[] {
  return [...new Map(placements.map((layers) => [JSON.stringify(layers), layers])).values()];
}

function layersOf(placement: LayerPlacement, { model, run, pools }: CandidateInput): readonly LayerStrategy[] {
  const forced: readonly ForcedLayerStrategy[] = run.strategy?.layers ?? [{ layers: [0, model.numLayers] }];
  return forced.map((range) => {
    const [start, end] = range.layers;
    const chosen = range.backwardOrder === undefined ? { ...placement, backwardOrder: orderFor(range, placement, pools) } : placement;
    return { ...chosen, segments: segmentLengths(end - start, run.segmentLayers), ...range };
  });
}

/** The ascending order keeps gradients of k, v on the device: where the user wants them elsewhere, a policy's order gives way. */
function orderFor({ keyValueGradients }: ForcedLayerStrategy, { backwardOrder }: LayerPlacement, { device }: PoolNames): BackwardOrder {
  return keyValueGradients === undefined || keyValueGradients === device ? backwardOrder : 'queryOuterDescending';
}

function toStrategy({ model, run, pools }: CandidateInput, layers: readonly LayerStrategy[], numChunks: number): Strategy {
  const chunkTokens = padSeqLen(run.seqLen, numChunks, run.sequenceParallelSize) / numChunks;
  const localChunkTokens = chunkTokens / run.sequenceParallelSize;
  const logitsBytes = localChunkTokens * model.vocabSize * DTYPE_BYTES.float32;
  return {
    kind: 'strategy',
    policy: run.policy,
    numChunks,
    chunkTokens,
    localChunkTokens,
    kvTileChunks: Math.min(numChunks, run.kvTileChunks ?? 1),
    numLossTiles: Math.min(localChunkTokens, run.numLossTiles ?? POLICIES[run.policy].lossTiles(logitsBytes)),
    numTokenTiles: Math.min(localChunkTokens, run.numTokenTiles ?? 1),
    prefetchDepth: run.prefetchDepth,
    hiddenGradients: run.strategy?.hiddenGradients ?? pools.device,
    layers,
  };
}
