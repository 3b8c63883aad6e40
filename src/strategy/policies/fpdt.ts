/** FPDT (arXiv 2408.16978): keys, values and layer inputs on the host, backward with an outer loop over key chunks. */
import { RECOMPUTE } from '../../spec/strategy.js';
import { type Policy, doublingCounts } from './policy.js';

/** DeepSpeed's `fpdt_layer.py`: default of chunk_size, in global tokens. */
const CHUNK_TOKENS = 65536;
/** Megatron-DeepSpeed's `gpt_model.py` computes the loss of a chunk in 32 pieces. */
const LOSS_TILES = 32;
/** Logits of less than this are not worth cutting. */
const SMALLEST_LOGITS_BYTES = 1024 ** 2;

export const fpdt: Policy = {
  placements: ({ device, pinned }) => [
    {
      keyValues: pinned,
      keyValueGradients: device,
      attentionOutput: RECOMPUTE,
      checkpoints: pinned,
      backwardOrder: 'keyValueOuterAscending',
    },
  ],
  chunkCounts: (run) => doublingCounts(run, Math.ceil(run.seqLen / CHUNK_TOKENS)),
  lossTiles: (logitsBytes) => Math.min(LOSS_TILES, Math.ceil(logitsBytes / SMALLEST_LOGITS_BYTES)),
  tokenTiles: () => 1,
};
