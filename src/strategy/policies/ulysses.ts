/** DeepSpeed-Ulysses (arXiv 2309.14509): the whole sequence at once, everything on the device, layers recomputed from their inputs. */
import { RECOMPUTE } from '../../spec/strategy.js';
import type { Policy } from './policy.js';

export const ulysses: Policy = {
  placements: ({ device }) => [
    {
      keyValues: device,
      keyValueGradients: device,
      attentionOutput: RECOMPUTE,
      checkpoints: device,
      backwardOrder: 'queryOuterDescending',
    },
  ],
  chunkCounts: () => [1],
  lossTiles: () => 1,
  tokenTiles: () => 1,
};
