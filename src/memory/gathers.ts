/**
 * Weights that ZeRO-3 gathers, and what gathering several at once takes: they come in one buffer and are copied out of it
 * (`_all_gather_dtype` and `AllGatherCoalescedHandle.wait`, zero/partition_parameters.py). The buffer goes once all of its weights have been
 * asked for: with those of a module, unless more was fetched ahead than a module has. One rank alone uses its shards as they are, unless
 * they are on the host.
 */
import { numWeightElements } from '../catalog/parameters.js';
import type { LayerParameters, ParameterView } from '../spec/types.js';
import type { InstantName } from './items.js';
import { fetchesWeights, overModel, type Terms } from './stateTerms.js';

/** Elements. */
export interface Gathered {
  readonly weights: number;
  /** In buffers that stay while ops run, and in one more while a module's weights are copied out of it. */
  readonly kept: number;
  readonly passing: number;
  /** Of this rank's own shares that come from the host at once. */
  readonly fetched: number;
}

export interface GatherFacts {
  /** Elements that are always whole, and the others. */
  readonly persistent: number;
  readonly sharded: number;
  readonly isSharded: (view: ParameterView) => boolean;
}

export function gatherFacts(terms: Terms): GatherFacts {
  const { zero, all } = terms;
  const isAlone = terms.numRanks === 1 && !fetchesWeights(terms);
  const small = smallElements(terms);
  // Beyond the model's threshold DeepSpeed leaves out the weights that come last; counted as if it left out none, or all.
  const keepsSmall = !isAlone && small > 0;
  const persistent = keepsSmall ? Math.min(small, zero.modelPersistenceThreshold) : 0;
  const isSharded = ({ numel }: ParameterView): boolean => numel > zero.persistenceThreshold || small > zero.modelPersistenceThreshold;
  return { persistent, sharded: isAlone ? 0 : all - persistent, isSharded };
}

function smallElements(terms: Terms): number {
  const { persistenceThreshold } = terms.zero;
  return overModel(terms, (views) => views.reduce((sum, { numel }) => sum + (numel <= persistenceThreshold ? numel : 0), 0));
}

export function gathered(name: InstantName, facts: GatherFacts, terms: Terms): Gathered {
  const { zero } = terms;
  const { sharded } = facts;
  const weights = Math.min(sharded, zero.maxLiveElements + neededElements(name, facts, terms));
  const kept = zero.coalescesGathers && sharded > 0 ? keptElements(name, facts, terms) : 0;
  const largest = largestFetch(name, facts, terms);
  const fetched = fetchesWeights(terms) ? Math.ceil(Math.max(kept, largest, terms.largest) / terms.numRanks) : 0;
  if (!zero.coalescesGathers || sharded === 0) return { weights, kept: 0, passing: 0, fetched };
  return { weights, kept, passing: Math.max(0, largest - kept), fetched };
}

/** The module's own; in backward also the layers that are rebuilt; for the loss of a tied model also the embedding. */
function neededElements(name: InstantName, { isSharded }: GatherFacts, { parameters, extraLayers, tieWordEmbeddings }: Terms): number {
  const elements = (views: readonly ParameterView[]): number => numWeightElements(views.filter(isSharded));
  if (name === 'embed' || name === 'gradientReduce') return elements(parameters.embed);
  if (name === 'loss') return elements(parameters.head) + (tieWordEmbeddings ? elements(parameters.embed) : 0);
  return largestLayer(parameters.layers, elements) * (name === 'layerBackward' ? 1 + extraLayers : 1);
}

/** Of a module's weights that come together: of the next one too, which is fetched when this one has run. */
function largestFetch(name: InstantName, { isSharded }: GatherFacts, { parameters }: Terms): number {
  const together = (views: readonly ParameterView[]): number => {
    const missing = views.filter(isSharded);
    return missing.length > 1 ? numWeightElements(missing) : 0;
  };
  const layer = largestLayer(parameters.layers, together);
  if (name === 'embed') return together(parameters.embed);
  if (name === 'gradientReduce') return together(parameters.embed);
  return name === 'loss' ? together(parameters.head) : layer;
}

/** Fetched ahead, beyond the next module. Where all weights stay, all have been asked for when the loss is. */
function keptElements(name: InstantName, { sharded }: GatherFacts, { parameters, zero, largest }: Terms): number {
  const smallest = Math.min(...parameters.layers.map(({ weights }) => numWeightElements(weights)));
  const ahead = Math.min(zero.prefetchBucketElements, zero.maxLiveElements);
  if (ahead <= smallest) return 0;
  const isForward = name === 'embed' || name === 'layerForward';
  if (!isForward && sharded <= zero.maxLiveElements) return 0;
  return Math.min(sharded, ahead + largest);
}

function largestLayer(layers: readonly LayerParameters[], count: (views: readonly ParameterView[]) => number): number {
  return Math.max(...layers.map(({ weights }) => count(weights)));
}
