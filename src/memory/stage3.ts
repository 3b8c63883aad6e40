/** Model states under ZeRO stage 3: everything sharded, the weights of modules at work gathered. */
import { numTrainedElements, numWeightElements } from '../catalog/parameters.js';
import type { LayerParameters, ParameterView } from '../spec/types.js';
import { derived, type InstantName, type MemoryItem } from './items.js';
import { hostGradients, optimizerStates } from './stages12.js';
import { largestOf, type StateItems, type Terms, TORCH_ADAM_STEP } from './stateTerms.js';

/** The reduce bucket is held for life, and small weights stay whole. */
export function fullySharded(terms: Terms): StateItems {
  const { ownedAll, owned, w, g, zero } = terms;
  const states = optimizerStates(owned);
  const device = [
    derived('weight shard', w * ownedAll, `${w} B * parameters / ranks`),
    derived('persistent small weights', w * persistentElements(terms), `${w} B * weights below stage3_param_persistence_threshold`),
    derived('reduce bucket', w * zero.reduceBucketElements, `${w} B * reduce_bucket_size`),
  ];
  if (zero.offloadOptimizer) return { device, pinned: [...states, ...hostGradients(terms)] };
  return { device: [...device, derived('gradient shard', g * owned, `${g} B * parameters that train / ranks`), ...states], pinned: [] };
}

function persistentElements({ parameters, classOf, zero }: Terms): number {
  const small = (views: readonly ParameterView[]): number =>
    views.reduce((sum, { numel }) => sum + (numel < zero.persistenceThreshold ? numel : 0), 0);
  const layers = parameters.layers.map(({ weights }) => small(weights));
  return classOf.reduce((sum, kind) => sum + (layers[kind] ?? 0), 0) + small(parameters.head) + small(parameters.embed);
}

export function fullyShardedInstant(name: InstantName, terms: Terms): readonly MemoryItem[] {
  const { all, owned, w, g, zero } = terms;
  if (name === 'optimizerStep') {
    const each = zero.torchAdam ? TORCH_ADAM_STEP : w < 4 && g < 4 ? 6 : 4;
    const bytes = zero.offloadOptimizer ? 0 : each * Math.min(zero.subGroupElements, owned);
    return [derived('optimizer temporaries', bytes, `${each} B * min(sub_group_size, parameters that train / ranks)`)];
  }
  const gathered = Math.min(all, zero.maxLiveElements + neededElements(name, terms));
  return [
    derived('gathered weights', w * gathered, `${w} B * min(parameters, stage3_max_live_parameters + those of the modules at work)`),
    derived('gradients being reduced', w * reducedElements(name, terms), `${w} B * parameters of the module that train`),
  ];
}

/** The module's own; in backward also the layers that are rebuilt; for the loss of a tied model also the embedding. */
function neededElements(name: InstantName, { parameters, extraLayers, tieWordEmbeddings }: Terms): number {
  const embed = numWeightElements(parameters.embed);
  if (name === 'embed' || name === 'gradientReduce') return embed;
  if (name === 'loss') return numWeightElements(parameters.head) + (tieWordEmbeddings ? embed : 0);
  return largestLayer(parameters.layers, numWeightElements) * (name === 'layerBackward' ? 1 + extraLayers : 1);
}

/** Gradients are reduced parameter by parameter once the bucket is full; a layer hands over all of its own at once. */
function reducedElements(name: InstantName, { parameters }: Terms): number {
  if (name === 'loss') return largestOf(parameters.head);
  if (name === 'gradientReduce') return largestOf(parameters.embed);
  return name === 'layerBackward' ? largestLayer(parameters.layers, numTrainedElements) : 0;
}

function largestLayer(layers: readonly LayerParameters[], count: (views: readonly ParameterView[]) => number): number {
  return Math.max(...layers.map(({ weights }) => count(weights)));
}
