/**
 * What is held inside deepspeed.initialize, by ZeRO stage, read from DeepSpeed 0.19.8 and measured on gloo ranks; what differs on a
 * GPU is by reading alone. Adam's states come at the first step, but for stage 0 in bf16.
 */
import type { ParameterView } from '../spec/types.js';
import { sumBytes } from './items.js';
import { SWAP_BUFFERS, swappedStates } from './optimizerDisk.js';
import { bucketBytes, subGroupBytes } from './stage3.js';
import { type Held, kept, type LoadTerms, passing } from './loadTerms.js';
import { accumulatesWide, offloadedWeightBytes, overModel, pinnedBytes, secondPartitionBytes, shardOf } from './stateTerms.js';
import { largestSubGroup } from './subGroups.js';
import { weightPlaces, weightsDiskItems } from './weightsDisk.js';

type Moments = readonly (readonly Held[])[];

export function engineMoments(terms: LoadTerms): Moments {
  if (terms.zero.stage === 3) return fullyShardedMoments(terms);
  return terms.zero.stage === 0 ? unshardedMoments(terms) : shardedMoments(terms);
}

/**
 * In bf16 DeepSpeed makes its states with a step on zero gradients. But for its own Adam that is FP16_UnfusedOptimizer
 * (`initialize_optimizer_states`, fp16/unfused_optimizer.py): gradients in both dtypes, and temporaries of torch's, on a GPU of all weights
 * at once (foreach). For that FP16_Optimizer (fp16/fused_optimizer.py): fp32 gradients alone, after clones of all weights.
 */
function unshardedMoments({ all, trained, w, largest, device, zero }: LoadTerms): Moments {
  const weights = kept('weights', w * all, `${w} B * parameters`);
  if (w === 4) return [[weights]];
  const { isTorch, label, stateBytes, updateBytes } = zero.optimizer;
  const states = [
    kept('master weights', 4 * trained, '4 B * parameters'),
    kept(`${label} states`, stateBytes * trained, `${stateBytes} B * parameters`),
  ];
  if (!isTorch && label === 'Adam') {
    return [
      [weights, passing('clones and flat copy', 2 * w * trained, `2 * ${w} B * parameters`)],
      [weights, ...states, passing('zero gradients', 4 * trained, `4 B * parameters: the step that makes ${label} states`)],
    ];
  }
  const together = isTorch ? Math.max(4, updateBytes - 4) : 0;
  const temporaries = device === 'cpu' ? updateBytes * largest : together * trained;
  const note = device === 'cpu' ? `${updateBytes} B * largest parameter` : `${together} B * parameters`;
  return [
    [
      weights,
      ...states,
      passing('zero gradients', (w + 4) * trained, `(${w} + 4) B * parameters: the step that makes ${label} states`),
      passing('optimizer temporaries', temporaries, note),
    ],
  ];
}

/**
 * `DeepSpeedZeroOptimizer.__init__` (zero/stage_1_and_2.py) flattens the weights into a copy, then clones its partition as master weights
 * and makes zero gradients of its size; stage 1 accumulating bf16 in fp32 is BF16_Optimizer (`_setup_for_real_optimizer`,
 * bf16_optimizer.py), which keeps gradients of all weights.
 */
function shardedMoments(terms: LoadTerms): Moments {
  const { all, trained, w, largest, numRanks, zero } = terms;
  const weights = kept('weights', w * all, `${w} B * parameters`);
  const aligned = 2 * Math.ceil(trained / (2 * numRanks));
  const away = zero.offloadOptimizer ? 'pinned' : 'device';
  const pinned = (bytes: number): number => (zero.offloadOptimizer ? pinnedBytes(bytes, terms) : bytes);
  const masters = kept('master weights', pinned(4 * aligned), '4 B * parameters / ranks', away);
  const flattening = flatMoment(weights, terms);
  if (!zero.offloadOptimizer) {
    const gradients = accumulatesWide(terms)
      ? kept('fp32 gradients', 4 * trained, '4 B * parameters: stage 1 accumulating in fp32')
      : passing('zero gradients', 4 * aligned, '4 B * parameters / ranks');
    return [flattening, [weights, masters, gradients]];
  }
  const buffer = `${w} B * largest parameter`;
  return [
    flattening,
    [
      weights,
      masters,
      kept('fp32 gradients', pinned(4 * aligned), '4 B * parameters / ranks', away),
      kept('weights for the device', pinned(w * aligned), `${w} B * parameters / ranks`, away),
      kept('gradient buffer for the host', w * largest, buffer),
      kept('largest gradient', pinned(w * largest), buffer, away),
      pageable((w + 4) * aligned, `(${w} + 4) B * parameters / ranks`, terms),
    ],
  ];
}

/** A GPU that has no room for the copy has the weights moved to host memory, and flattened there. */
function flatMoment(weights: Held, { all, trained, w, device, deviceBytes }: LoadTerms): readonly Held[] {
  if (device === 'cpu' || w * (all + trained) <= deviceBytes) return [weights, passing('flat copy', w * trained, `${w} B * parameters`)];
  return [weights, passing('weights and flat copy', 2 * w * trained, `2 * ${w} B * parameters: the device has no room for both`, 'pinned')];
}

/**
 * `_create_fp16_partitions_with_defragmentation`, `_create_fp32_partitions`, `initialize_optimizer_states`, `_setup_for_real_optimizer`
 * and `create_reduce_and_remove_grad_hooks` of zero/stage3.py: shards are moved into one buffer by way of host memory; master weights are
 * clones of a conversion, and zero gradients of the largest sub-group follow it; then come the gradient shard and the reduce bucket,
 * and every weight is gathered once, alone, for its hook.
 */
function fullyShardedMoments(terms: LoadTerms): Moments {
  const { w, g, largest, numRanks, device, zero } = terms;
  const ownedAll = shardElements(terms, () => true);
  const owned = shardElements(terms, ({ trainable }) => trainable);
  const away = zero.offloadOptimizer ? 'pinned' : 'device';
  const isOnHost = zero.offloadWeights !== undefined;
  const places = weightPlaces(terms);
  const hostBytes = places === undefined ? offloadedWeightBytes({ ...terms, ownedAll, owned }) : sumBytes(weightsDiskItems(places, terms));
  const shardBytes = isOnHost ? hostBytes : w * ownedAll;
  const shard = kept('weight shard', shardBytes, `${w} B * parameters / ranks`, isOnHost ? 'pinned' : 'device');
  const note = `${w} B * ${terms.secondShares} * parameters / ranks: zero_hpz_partition_size`;
  const second = kept('second partition', secondPartitionBytes(ownedAll, terms), note, isOnHost ? 'pinned' : 'device');
  const subGroup = largestSubGroup(terms);
  const onDisk = swappedStates(terms)?.pinned.find(({ name }) => name === SWAP_BUFFERS);
  const masters =
    onDisk === undefined
      ? kept('master weights', 4 * owned, '4 B * parameters / ranks', away)
      : kept(SWAP_BUFFERS, onDisk.bytes, onDisk.note, away);
  const offloaded =
    zero.offloadOptimizer && onDisk === undefined
      ? [kept('fp32 gradients', subGroupBytes(owned, subGroup, terms), '4 B * parameters / ranks', away)]
      : [];
  const gradients = zero.offloadOptimizer ? pinnedBytes(g * owned, terms) : g * owned;
  return [
    [shard, second, passing('flat copy', w * owned, `${w} B * parameters / ranks`, device === 'cpu' ? 'device' : 'pinned')],
    [
      shard,
      second,
      masters,
      ...offloaded,
      passing('zero gradients', 4 * subGroup, '4 B * parameters / ranks of the largest sub-group', away),
      pageable(4 * subGroup, '4 B * parameters / ranks of the largest sub-group', terms),
    ],
    [
      shard,
      second,
      masters,
      ...offloaded,
      kept('gradient shard', gradients, `${g} B * parameters / ranks`, away),
      kept('reduce bucket', bucketBytes(terms), `${terms.c} B * reduce_bucket_size`),
      passing('gathered weight', w * numRanks * Math.ceil(largest / numRanks), `${w} B * largest parameter`),
    ],
  ];
}

/** pin_memory of the GPU accelerator copies a tensor; the CPU's gives it back as it is. */
function pageable(bytes: number, note: string, { device, zero }: LoadTerms): Held {
  return passing('originals of pinned copies', device === 'cuda' && zero.pinOptimizer ? bytes : 0, note, 'pinned');
}

function shardElements(terms: LoadTerms, counts: (view: ParameterView) => boolean): number {
  return overModel(terms, (views) => shardOf(views.filter(counts), terms.numRanks));
}
