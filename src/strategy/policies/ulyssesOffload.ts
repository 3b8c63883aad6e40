/** DeepSpeed-Ulysses whose layers are recomputed from inputs that are kept on the host (DeepSpeed's `cpu_checkpointing`). */
import type { Policy } from './policy.js';
import { ulysses } from './ulysses.js';

export const ulyssesOffload: Policy = {
  ...ulysses,
  placements: (pools) => ulysses.placements(pools).map((placement) => ({ ...placement, checkpoints: pools.pinned })),
};
