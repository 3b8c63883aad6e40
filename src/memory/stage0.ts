/** Model states without ZeRO. */
import { derived, type InstantItem, type InstantName } from './items.js';
import { reductions } from './reductions.js';
import { reductionItems } from './stages12.js';
import type { StateItems, Terms } from './stateTerms.js';

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

/** Gradients from the loss on, of micro-steps before all the time; several ranks reduce them at the end of backward. */
export function unshardedInstants(terms: Terms): (name: InstantName) => readonly InstantItem[] {
  const { trained, w, afterLoss, numRanks, run } = terms;
  const found = numRanks > 1 ? reductions(terms) : {};
  return (name) => {
    const isForward = name === 'embed' || name === 'layerForward';
    const elements = name === 'loss' ? afterLoss : isForward && run.gradientAccumulationSteps === 1 ? 0 : trained;
    return [
      derived('gradients', w * elements, `${w} B * parameters that train`),
      ...(name === 'optimizerStep' ? [stepItem(terms)] : reductionItems(found[name])),
    ];
  };
}

/** Flat fp32 gradients and Adam's temporaries (16 -> 24 B); on a CPU torch's Adam has those of one weight after the other. */
function stepItem({ trained, largest, w, device, zero }: Terms): InstantItem {
  const converted = w < 4 ? 4 : 0;
  if (device === 'cpu' && zero.torchAdam) {
    const note = `${converted} B * parameters that train, 12 B * largest parameter`;
    return derived('optimizer temporaries', converted * trained + 12 * largest, note);
  }
  return derived('optimizer temporaries', (converted + 4) * trained, `${converted + 4} B * parameters that train`);
}
