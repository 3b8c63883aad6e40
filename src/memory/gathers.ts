/**
 * Weights that ZeRO-3 gathers, and what gathering several at once takes: they come in one buffer and are copied out of it
 * (`_all_gather_dtype` and `AllGatherCoalescedHandle.wait`, zero/partition_parameters.py). The buffer goes once all of its weights have been
 * asked for: with those of a module, unless more was fetched ahead than a module has. One rank alone uses its shards as they are.
 */
import { numWeightElements } from '../catalog/parameters.js';
import type { LayerParameters, ParameterView } from '../spec/types.js';
import type { InstantName } from './items.js';
import { overModel, type Terms } from './stateTerms.js';

/** Elements. */
export interface Gathered {
  readonly weights: number;
  /** In buffers that stay while ops run, and in one more while a module's weights are copied out of it. */
  readonly kept: number;
  readonly passing: number;
}

export interface GatherFacts {
  /** Elements that are always whole, and the others. */
  readonly persistent: number;
  readonly sharded: number;
  readonly isSharded: (view: ParameterView) => boolean;
}

export function gatherFacts(terms: Terms): GatherFacts {
  const { zero, numRanks, all } = terms;
  const small = smallElements(terms);
  // Beyond the model's threshold DeepSpeed leaves out the weights that come last; counted as if it left out none, or all.
  const keepsSmall = numRanks > 1 && small > 0;
  const persistent = keepsSmall ? Math.min(small, zero.modelPersistenceThreshold) : 0;
  const isSharded = ({ numel }: ParameterView): boolean => numel > zero.persistenceThreshold || small > zero.modelPersistenceThreshold;
  return { persistent, sharded: numRanks === 1 ? 0 : all - persistent, isSharded };
}

function smallElements(terms: Terms): number {
  const { persistenceThreshold } = terms.zero;
  return overModel(terms, (views) => views.reduce((sum, { numel }) => sum + (numel <= persistenceThreshold ? numel : 0), 0));
}

export function gathered(name: InstantName, facts: GatherFacts, terms: Terms): Gathered {
  const { zero } = terms;
  const { sharded } = facts;
  const weights = Math.min(sharded, zero.maxLiveElements + neededElements(name, facts, terms));
  if (!zero.coalescesGathers || sharded === 0) return { weights, kept: 0, passing: 0 };
  const kept = keptElements(name, facts, terms);
  return { weights, kept, passing: Math.max(0, largestFetch(name, facts, terms) - kept) };
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
