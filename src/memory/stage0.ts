/** Model states without ZeRO. */
import { derived, type InstantName, type MemoryItem } from './items.js';
import { isBackward, type StateItems, type Terms } from './stateTerms.js';

/**
 * 14 B a parameter in bf16 and fp16 (2 weight, 4 master, 8 Adam), 12 in fp32. Both have DeepSpeed's FP16_Optimizer, or
 * FP16_UnfusedOptimizer where Adam is torch's (engine.py, `_configure_fp16_optimizer`); the loss scale and the search for overflow
 * are scalars.
 */
export function unsharded({ all, trained, w }: Terms): StateItems {
  return {
    device: [
      derived('weights', w * all, `${w} B * parameters`),
      derived('master weights', w < 4 ? 4 * trained : 0, '4 B * parameters that train'),
      derived('Adam states', 8 * trained, '8 B * parameters that train'),
    ],
    pinned: [],
  };
}

/** Gradients from the loss on; the step of that optimizer adds flat fp32 gradients and Adam's temporaries (16 -> 24 B). */
export function unshardedInstant(name: InstantName, { trained, w, afterLoss }: Terms): readonly MemoryItem[] {
  const elements = name === 'loss' ? afterLoss : isBackward(name) || name === 'optimizerStep' ? trained : 0;
  const step = name === 'optimizerStep' ? (w < 4 ? 8 : 4) * trained : 0;
  return [
    derived('gradients', w * elements, `${w} B * parameters that train`),
    derived('optimizer temporaries', step, `${w < 4 ? 8 : 4} B * parameters that train`),
  ];
}
