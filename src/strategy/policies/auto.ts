/** Whatever is exact: what is fastest first and what needs least memory last. */
import { RECOMPUTE } from '../../spec/strategy.js';
import { type LayerPlacement, type Policy, doublingCounts } from './policy.js';

/** The fp32 logits of one loss tile stay below this. */
const LOGITS_TILE_BYTES = 128 * 1024 ** 2;
/** No chunk of more tokens per rank is tried: projections of that many fill a GPU, and its loss alone would be thousands of tiles. */
const MOST_LOCAL_CHUNK_TOKENS = 256 * 1024;

export const auto: Policy = {
  placements: ({ device, pinned }) => {
    const descending = (keyValues: string, attentionOutput: string, checkpoints: string): LayerPlacement => ({
      keyValues,
      keyValueGradients: device,
      attentionOutput,
      checkpoints,
      backwardOrder: 'queryOuterDescending',
    });
    return [
      descending(device, device, device),
      descending(device, device, pinned),
      descending(device, pinned, pinned),
      descending(device, RECOMPUTE, device),
      descending(device, RECOMPUTE, pinned),
      descending(pinned, pinned, pinned),
      descending(pinned, RECOMPUTE, pinned),
    ];
  },
  chunkCounts: (run) => doublingCounts(run, Math.ceil(Math.ceil(run.seqLen / run.sequenceParallelSize) / MOST_LOCAL_CHUNK_TOKENS)),
  lossTiles: (logitsBytes) => Math.ceil(logitsBytes / LOGITS_TILE_BYTES),
  tokenTiles: () => 1,
};
