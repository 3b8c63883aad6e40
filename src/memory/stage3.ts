/** Model states under ZeRO stage 3: everything sharded, the weights of modules at work gathered. */
import type { ParameterView } from '../spec/types.js';
import { derived, type InstantName, type MemoryItem } from './items.js';
import { hostGradients, optimizerStates } from './stages12.js';
import { largestOf, type StateItems, type Terms } from './stateTerms.js';

/** The reduce bucket is held for life, and small weights stay whole. */
export function fullySharded(terms: Terms): StateItems {
  const { owned, w, g, zero } = terms;
  const states = optimizerStates(owned);
  const device = [
    derived('weight shard', w * owned, `${w} B * parameters / ranks`),
    derived('persistent small weights', w * persistentElements(terms), `${w} B * weights below stage3_param_persistence_threshold`),
    derived('reduce bucket', w * zero.reduceBucketElements, `${w} B * reduce_bucket_size`),
  ];
  if (zero.offloadOptimizer) return { device, pinned: [...states, ...hostGradients(terms)] };
  return { device: [...device, derived('gradient shard', g * owned, `${g} B * parameters / ranks`), ...states], pinned: [] };
}

function persistentElements({ parameters, numLayers, zero }: Terms): number {
  const small = (views: readonly ParameterView[]): number =>
    views.reduce((sum, { numel }) => sum + (numel < zero.persistenceThreshold ? numel : 0), 0);
  return numLayers * small(parameters.layer) + small(parameters.head) + small(parameters.embed);
}

export function fullyShardedInstant(name: InstantName, terms: Terms): readonly MemoryItem[] {
  const { all, owned, w, g, zero } = terms;
  if (name === 'optimizerStep') {
    const each = w < 4 && g < 4 ? 6 : 4;
    const bytes = zero.offloadOptimizer ? 0 : each * Math.min(zero.subGroupElements, owned);
    return [derived('optimizer temporaries', bytes, `${each} B * min(sub_group_size, parameters / ranks)`)];
  }
  const gathered = Math.min(all, zero.maxLiveElements + neededElements(name, terms));
  return [
    derived('gathered weights', w * gathered, `${w} B * min(parameters, stage3_max_live_parameters + those of the modules at work)`),
    derived('gradients being reduced', w * reducedElements(name, terms), `${w} B * parameters of the module`),
  ];
}

/** The module's own; in backward also the layers that are rebuilt; for the loss of a tied model also the embedding. */
function neededElements(name: InstantName, { parameters, extraLayers, tieWordEmbeddings }: Terms): number {
  const { numEmbedElements, numHeadElements, numLayerElements } = parameters;
  if (name === 'embed' || name === 'gradientReduce') return numEmbedElements;
  if (name === 'loss') return numHeadElements + (tieWordEmbeddings ? numEmbedElements : 0);
  return numLayerElements * (name === 'layerBackward' ? 1 + extraLayers : 1);
}

/** Gradients are reduced parameter by parameter once the bucket is full; a layer hands over all of its own at once. */
function reducedElements(name: InstantName, { parameters }: Terms): number {
  if (name === 'loss') return largestOf(parameters.head);
  if (name === 'gradientReduce') return largestOf(parameters.embed);
  return name === 'layerBackward' ? parameters.numLayerElements : 0;
}
