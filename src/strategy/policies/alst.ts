/** ALST (arXiv 2506.13996): Ulysses with layer inputs on the host, the MLP and the loss in tiles. */
import type { Policy } from './policy.js';
import { ulyssesOffload } from './ulyssesOffload.js';

/** ArcticTraining's `sft_trainer.py`: the fp32 logits of a tile are about a GiB. */
const LOGITS_TILE_BYTES = 1024 ** 3;

export const alst: Policy = {
  ...ulyssesOffload,
  lossTiles: (logitsBytes) => Math.ceil(logitsBytes / LOGITS_TILE_BYTES),
  /** DeepSpeed's `ulysses_sp.py`, TiledMLP: as many tokens to a tile as the model is wide. Our tiles hold for projections and norms as well. */
  tokenTiles: (localTokens, hidden) => Math.ceil(localTokens / hidden),
};
