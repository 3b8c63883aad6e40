/** Model states without ZeRO. */
import { derived, type InstantItem, type InstantName } from './items.js';
import { reductions } from './reductions.js';
import { reductionItems, statesItem } from './stages12.js';
import type { StateItems, Terms } from './stateTerms.js';

/**
 * 14 B a parameter in bf16 and fp16 (2 weight, 4 master, 8 Adam), 12 in fp32. Both have DeepSpeed's FP16_Optimizer, or
 * FP16_UnfusedOptimizer where the optimizer is not its own Adam (engine.py, `_configure_fp16_optimizer`); the loss scale and the search
 * for overflow are scalars.
 */
export function unsharded({ all, trained, w, zero }: Terms): StateItems {
  return {
    device: [
      derived('weights', w * all, `${w} B * parameters`),
      derived('master weights', w < 4 ? 4 * trained : 0, '4 B * parameters that train'),
      statesItem(trained, '', zero),
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

/** Flat fp32 gradients and Adam's temporaries (16 -> 24 B); on a CPU torch's optimizers have those of one weight after the other. */
function stepItem({ trained, largest, w, device, zero }: Terms): InstantItem {
  const converted = w < 4 ? 4 : 0;
  const { isTorch, updateBytes } = zero.optimizer;
  if (device === 'cpu' && isTorch) {
    const each = 4 + updateBytes;
    const note = `${converted} B * parameters that train, ${each} B * largest parameter`;
    return derived('optimizer temporaries', converted * trained + each * largest, note);
  }
  // Adam's, one list of weights after the other, has half of its temporaries at once.
  const together = isTorch ? Math.max(4, updateBytes - 4) : 4;
  return derived('optimizer temporaries', (converted + together) * trained, `${converted + together} B * parameters that train`);
}
