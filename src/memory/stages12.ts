/** Model states under ZeRO stages 1 and 2: weights whole, master weights and Adam sharded. */
import { derived, type InstantName, type MemoryItem } from './items.js';
import { isBackward, type StateItems, type Terms, TORCH_ADAM_STEP } from './stateTerms.js';

/** 12 B of master and Adam sharded; on the host with offload_optimizer (18 B in bf16 and fp16). */
export function sharded(terms: Terms): StateItems {
  const { all, trained, owned, w, zero, largest } = terms;
  const weights = derived('weights', w * all, `${w} B * parameters`);
  const states = optimizerStates(owned);
  const accumulated = derived(
    'fp32 gradients',
    accumulatesWide(terms) ? 4 * trained : 0,
    '4 B * parameters that train: stage 1 accumulating in fp32',
  );
  if (!zero.offloadOptimizer) return { device: [weights, accumulated, ...states], pinned: [] };
  return {
    device: [weights, accumulated, derived('gradient buffer for the host', w * largest, `${w} B * largest parameter`)],
    pinned: [...states, ...hostGradients(terms), derived('largest gradient', w * largest, `${w} B * largest parameter`)],
  };
}

export function optimizerStates(owned: number): readonly MemoryItem[] {
  return [
    derived('master weights', 4 * owned, '4 B * parameters that train / ranks'),
    derived('Adam states', 8 * owned, '8 B * parameters that train / ranks'),
  ];
}

export function hostGradients({ owned, w }: Pick<Terms, 'owned' | 'w'>): readonly MemoryItem[] {
  return [
    derived('fp32 gradients', 4 * owned, '4 B * parameters that train / ranks'),
    derived('pinned gradients', w * owned, `${w} B * parameters that train / ranks`),
  ];
}

/** Stage 1 keeps all gradients to the end of backward, stage 2 its share and the largest parameter's. */
export function shardedInstant(name: InstantName, terms: Terms): readonly MemoryItem[] {
  const { trained, owned, w, g, zero, largest, afterLoss } = terms;
  const backward = isBackward(name) || name === 'loss';
  const step = name === 'optimizerStep';
  if (!backward && !step) return [];
  if (accumulatesWide(terms)) return wideInstant(name, terms);
  const buckets = zero.overlapComm ? 2 : 1;
  const stage1 = (name === 'loss' ? afterLoss : trained) * g;
  const onDevice = !zero.offloadOptimizer;
  return [
    derived('reduce buckets', backward ? buckets * w * zero.reduceBucketElements : 0, `${buckets} * ${w} B * reduce_bucket_size`),
    derived(
      zero.stage === 1 ? 'gradients' : 'gradient of the largest parameter',
      !backward ? 0 : zero.stage === 1 ? stage1 : w * largest,
      zero.stage === 1 ? `${g} B * parameters that train` : `${w} B * largest parameter`,
    ),
    derived(
      'averaged gradients',
      onDevice ? g * owned + g * largest : 0,
      `${g} B * (parameters that train / ranks + the parameter cut by the partition)`,
    ),
    step && onDevice ? stepTemporaries(terms) : derived('optimizer temporaries', 0, ''),
  ];
}

/** The averaged gradients have gone into fp32 ones when the update runs. */
function stepTemporaries({ owned, g, largest, zero }: Terms): MemoryItem {
  const bytes = zero.torchAdam ? Math.max(6 * owned, TORCH_ADAM_STEP * owned - g * (owned + largest)) : 6 * owned;
  const most = zero.torchAdam
    ? `${TORCH_ADAM_STEP} B * parameters that train / ranks, less averaged gradients`
    : '6 B * parameters that train / ranks';
  return derived('optimizer temporaries', bytes, most);
}

/**
 * Stage 1 accumulating bf16 gradients in fp32 is another class (BF16_Optimizer): 6 + 12/N B idle, 10 at most, 8 at the step. fp16
 * stays with the class of stages 1 and 2, which then keeps each gradient as an fp32 `grad_accum` of its weight instead.
 */
export function accumulatesWide({ zero, run }: Terms): boolean {
  return zero.stage === 1 && zero.accumulateInFp32 && run.dtype === 'bfloat16' && !zero.offloadOptimizer;
}

function wideInstant(name: InstantName, { trained, w, afterLoss }: Terms): readonly MemoryItem[] {
  const elements = name === 'loss' ? afterLoss : trained;
  const copies = name === 'optimizerStep' ? 1 : 2;
  return [derived('gradients', copies * w * elements, `${copies} * ${w} B * parameters that train`)];
}
