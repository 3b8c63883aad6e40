/** Model states under ZeRO stage 3: everything sharded, the weights of modules at work gathered. */
import { derived, derivedAt, type EvaluationInstant, type InstantItem, type InstantName } from './items.js';
import { gathered, gatherFacts, type GatherFacts } from './gathers.js';
import { reductions } from './reductions.js';
import { firstSwappedStep, swappedStates } from './optimizerDisk.js';
import { optimizerStates, reductionItems, torchUpdateItem } from './stages12.js';
import {
  fetchesWeights,
  offloadedWeightBytes,
  overModel,
  pinnedBytes,
  secondPartitionBytes,
  shardOf,
  type StateItems,
  type Terms,
  torchStepBytes,
} from './stateTerms.js';
import { largestSubGroup } from './subGroups.js';
import { readShare, weightPlaces, weightsDiskItems } from './weightsDisk.js';

/** The reduce bucket is held for life, and small weights stay whole. */
export function fullySharded(terms: Terms): StateItems {
  const { owned, w, g } = terms;
  const shard = withSecond(weightShard(terms), terms);
  const device = [
    ...shard.device,
    derived('persistent small weights', w * gatherFacts(terms).persistent, `${w} B * weights up to stage3_param_persistence_threshold`),
    derived('reduce bucket', bucketBytes(terms), `${terms.c} B * reduce_bucket_size`),
  ];
  const disk = swappedStates(terms);
  const { file = [] } = shard;
  if (disk !== undefined) {
    return { device: [...device, ...disk.device], pinned: [...shard.pinned, ...disk.pinned], file: [...file, ...disk.file] };
  }
  if (terms.zero.offloadOptimizer) return { device, pinned: [...shard.pinned, ...hostStates(terms)], file };
  return {
    device: [...device, derived('gradient shard', g * owned, `${g} B * parameters that train / ranks`), ...optimizerStates(terms)],
    pinned: shard.pinned,
    file,
  };
}

function weightShard(terms: Terms): StateItems {
  const { ownedAll, w, zero } = terms;
  const note = `${w} B * parameters / ranks`;
  const places = weightPlaces(terms);
  if (places !== undefined) {
    return { device: [], pinned: weightsDiskItems(places, terms), file: [derived('weights', places.fileBytes, note)] };
  }
  if (zero.offloadWeights === undefined) return { device: [derived('weight shard', w * ownedAll, note)], pinned: [] };
  return { device: [], pinned: [derived('weight shard', offloadedWeightBytes(terms), `${note}, on the host by offload_param`)] };
}

/** Where the shares are. */
function withSecond(shard: StateItems, terms: Terms): StateItems {
  const { w, secondShares, zero, numRanks } = terms;
  const elements = overModel(terms, (views) => shardOf(views, numRanks));
  const note = `${w} B * ${secondShares} * parameters / ranks: zero_hpz_partition_size`;
  const second = derived('second partition', secondPartitionBytes(elements, terms), note);
  if (zero.offloadWeights === undefined) return { ...shard, device: [...shard.device, second] };
  return { ...shard, pinned: [...shard.pinned, second] };
}

/** In the dtype that gradients travel in; none where they stay where they are. */
export function bucketBytes({ c, zero }: Pick<Terms, 'c' | 'zero'>): number {
  return zero.contiguousGradients ? c * zero.reduceBucketElements : 0;
}

/** Gradients are pinned: fp32 ones by sub-group, and those of a micro-step in one tensor. Master weights and Adam's states are not. */
function hostStates(terms: Terms): StateItems['pinned'] {
  const { owned, g } = terms;
  return [
    ...optimizerStates(terms),
    derived('fp32 gradients', subGroupBytes(owned, largestSubGroup(terms), terms), '4 B * parameters that train / ranks'),
    derived('pinned gradients', pinnedBytes(g * owned, terms), `${g} B * parameters that train / ranks`),
  ];
}

/** fp32 gradients, a tensor for each sub-group: counted as if all but the last were as large as the largest. */
export function subGroupBytes(owned: number, subGroup: number, terms: Terms): number {
  if (subGroup === 0) return 0;
  return Math.floor(owned / subGroup) * pinnedBytes(4 * subGroup, terms) + pinnedBytes(4 * (owned % subGroup), terms);
}

export function fullyShardedInstants(terms: Terms): (name: InstantName) => readonly InstantItem[] {
  const facts = gatherFacts(terms);
  const found = reductions(terms);
  return (name) => (name === 'optimizerStep' ? [stepItem(terms)] : [...gatherItems(name, facts, terms), ...reductionItems(found[name])]);
}

/** Gathers are those of training's forward. */
export function fullyShardedEvaluation(terms: Terms): (name: EvaluationInstant) => readonly InstantItem[] {
  const facts = gatherFacts(terms);
  return (name) => gatherItems(name === 'evaluateLoss' ? 'loss' : 'layerForward', facts, terms);
}

function gatherItems(name: InstantName, facts: GatherFacts, terms: Terms): readonly InstantItem[] {
  const { w } = terms;
  const { weights, kept, passing, fetched } = gathered(name, facts, terms);
  return [
    derived('gathered weights', w * weights, `${w} B * min(parameters, stage3_max_live_parameters + those of the modules at work)`),
    derived('buffer of weights fetched ahead', w * kept, `${w} B * (stage3_prefetch_bucket_size + largest parameter)`),
    derivedAt('gather', 'buffer of gathered weights', w * passing, `${w} B * parameters of the module, which are copied out of it`),
    derivedAt('gather', 'weights from the host', w * fetched, `${w} B * parameters that are fetched together / ranks, by offload_param`),
    derived(
      'shares from the disk',
      w * readElements(weights, terms),
      `${w} B * gathered parameters / ranks: there until they are released`,
    ),
  ];
}

/** Alone, a rank's share is what is gathered. */
function readElements(gatheredElements: number, terms: Terms): number {
  return terms.numRanks === 1 || readShare(terms) === 0 ? 0 : Math.ceil(gatheredElements / terms.numRanks);
}

/** fp32 gradients of one sub-group after the other; before, each is normed in fp64. */
function stepItem(terms: Terms): InstantItem {
  const { w, zero, largest, numRanks } = terms;
  const elements = largestSubGroup(terms);
  if (swappedStates(terms) !== undefined) return firstSwappedStep(elements, terms);
  if (zero.offloadOptimizer) return { ...torchUpdateItem(elements, terms), pinned: true };
  // Updated weights are converted before they go to the host.
  const leaving = fetchesWeights(terms) ? w : 0;
  const each = leaving + zeroStepBytes(terms);
  const norm = 8 * Math.ceil(largest / numRanks);
  const note = `${each} B * min(sub_group_size, parameters that train / ranks)`;
  return derived('optimizer temporaries', Math.max(norm, each * elements), note);
}

function zeroStepBytes(terms: Terms): number {
  const { w, g, zero } = terms;
  return zero.optimizer.isTorch ? torchStepBytes(terms) : w < 4 && g < 4 ? 6 : 4;
}
