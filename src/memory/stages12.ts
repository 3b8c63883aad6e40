/** Model states under ZeRO stages 1 and 2: weights whole, master weights and Adam sharded. */
import { derived, derivedAt, type InstantItem, type InstantName, type MemoryItem } from './items.js';
import { type Reduction, type Reductions, reductions } from './reductions.js';
import { accumulatesWide, isBackward, isCompact, pinnedBytes, type StateItems, type Terms, torchStepBytes } from './stateTerms.js';

/** 12 B of master and Adam sharded; on the host with offload_optimizer (18 B in bf16 and fp16). */
export function sharded(terms: Terms): StateItems {
  const { all, trained, w, zero, largest } = terms;
  const weights = derived('weights', w * all, `${w} B * parameters`);
  const accumulated = derived(
    'fp32 gradients',
    accumulatesWide(terms) ? 4 * trained : 0,
    '4 B * parameters that train: stage 1 accumulating in fp32',
  );
  if (!zero.offloadOptimizer) return { device: [weights, accumulated, ...optimizerStates(terms)], pinned: [] };
  return {
    device: [weights, accumulated, derived('gradient buffer for the host', w * largest, `${w} B * largest parameter`)],
    pinned: hostStates(terms),
  };
}

export function optimizerStates({ owned, zero }: Pick<Terms, 'owned' | 'zero'>): readonly MemoryItem[] {
  return [derived('master weights', 4 * owned, '4 B * parameters that train / ranks'), statesItem(owned, '/ ranks', zero)];
}

/** What the optimizer keeps of so many parameters that it updates. */
export function statesItem(elements: number, share: '' | '/ ranks', { optimizer }: Pick<Terms['zero'], 'optimizer'>): MemoryItem {
  const { label, stateBytes } = optimizer;
  return derived(`${label} states`, stateBytes * elements, `${stateBytes} B * parameters that train ${share}`.trim());
}

/** Master weights, their gradients, weights on their way back and the largest gradient are pinned, each by itself; Adam's states are not. */
function hostStates(terms: Terms): readonly MemoryItem[] {
  const { owned, w, largest, run, zero } = terms;
  const pinned = (name: string, bytes: number, note: string): MemoryItem => derived(name, pinnedBytes(bytes, terms), note);
  const accumulates = zero.stage === 2 && run.gradientAccumulationSteps > 1 && !isCompact(terms);
  return [
    pinned('master weights', 4 * owned, '4 B * parameters that train / ranks'),
    statesItem(owned, '/ ranks', zero),
    pinned('fp32 gradients', 4 * owned, '4 B * parameters that train / ranks'),
    pinned('pinned gradients', w * owned, `${w} B * parameters that train / ranks`),
    pinned('largest gradient', w * largest, `${w} B * largest parameter`),
    // Weight by weight, of which a power of two may be anything up to twice the size.
    derived(
      'accumulated gradients',
      accumulates ? (pinnedBytes(1, terms) > 1 ? 2 : 1) * cutBytes(terms) : 0,
      `${w} B * (parameters that train / ranks + the parameter cut by the partition), of micro-steps before`,
    ),
  ];
}

/** Stage 1 keeps all gradients to the end of backward, stage 2 its share and those that are being reduced. */
export function shardedInstants(terms: Terms): (name: InstantName) => readonly InstantItem[] {
  if (accumulatesWide(terms)) return (name) => wideInstant(name, terms);
  const found = reductions(terms, averagedBytes(terms));
  return terms.zero.stage === 1 ? (name) => accumulating(name, found, terms) : (name) => partitioning(name, found, terms);
}

function accumulating(name: InstantName, found: Reductions, terms: Terms): readonly InstantItem[] {
  if (name === 'optimizerStep') return stepItems(terms);
  const { trained, g, afterLoss, run } = terms;
  const isLater = run.gradientAccumulationSteps > 1;
  const isForward = name === 'embed' || name === 'layerForward';
  const bytes = isForward ? (isLater ? g * trained : 0) : g * (name === 'loss' ? afterLoss : trained);
  return [
    ...(isForward && !isLater ? [] : [bucketsItem(terms)]),
    derived('gradients', bytes, `${g} B * parameters that train`),
    ...(name === 'gradientReduce' ? reductionItems(beyond(found[name], bytes)) : []),
  ];
}

/** What a reduction takes beside gradients that are an item of their own, and go as they are reduced. */
function beyond(found: Reduction | undefined, bytes: number): Reduction | undefined {
  if (found === undefined) return undefined;
  return { ...found, held: 0, gradients: 0, copies: Math.max(0, found.held + found.gradients + found.copies - bytes) };
}

function partitioning(name: InstantName, found: Reductions, terms: Terms): readonly InstantItem[] {
  if (name === 'optimizerStep') return stepItems(terms);
  const before = terms.run.gradientAccumulationSteps > 1 && !terms.zero.offloadOptimizer;
  const isForward = name === 'embed' || name === 'layerForward';
  const bytes = averagedBytes(terms);
  const own = isCompact(terms) ? before || found[name]?.isReduced === true : found[name]?.isReduced === true;
  return [
    ...(isForward ? [] : [bucketsItem(terms)]),
    averagedItem(own ? bytes : 0, terms),
    derived('averaged gradients so far', before && !isCompact(terms) ? bytes : 0, 'as many, of micro-steps before'),
    ...reductionItems(found[name]),
  ];
}

/** Gradients on their way: what stage 3 has of them too. */
export function reductionItems(found: Reduction | undefined): readonly InstantItem[] {
  if (found === undefined) return [];
  return [
    derived('gradients that wait', found.held, 'of a reduce bucket without a buffer, or larger than it'),
    derivedAt('reduce', 'gradients being reduced', found.gradients, 'of the module that has been run, until the bucket has them'),
    derivedAt('reduce', 'copies of reduced gradients', found.copies, 'the reduce bucket made one tensor, in the dtype that it travels in'),
  ];
}

function bucketsItem({ w, g, zero }: Terms): MemoryItem {
  const buckets = zero.overlapComm ? 2 : 1;
  const bytes = zero.stage === 1 ? g : w;
  const all = zero.contiguousGradients ? buckets * bytes * zero.reduceBucketElements : 0;
  return derived('reduce buckets', all, `${buckets} * ${bytes} B * reduce_bucket_size`);
}

function cutBytes({ w, owned, largest }: Terms): number {
  return w * (owned + largest);
}

function averagedBytes(terms: Terms): number {
  if (isCompact(terms)) return 4 * terms.owned;
  return terms.zero.offloadOptimizer ? 0 : cutBytes(terms);
}

function averagedItem(bytes: number, terms: Terms): MemoryItem {
  const whole = `${terms.w} B * (parameters that train / ranks + the parameter cut by the partition)`;
  return derived('averaged gradients', bytes, isCompact(terms) ? '4 B * parameters that train / ranks' : whole);
}

/**
 * The averaged gradients have gone into fp32 ones when the update runs; before, each is normed in fp64. An update on the host has them there,
 * and torch's Adam its temporaries.
 */
function stepItems(terms: Terms): readonly InstantItem[] {
  const { owned, largest, zero } = terms;
  const averaged = averagedBytes(terms);
  if (zero.offloadOptimizer) {
    return [averagedItem(averaged, terms), { ...torchUpdateItem(owned, terms), pinned: true }];
  }
  const norm = 8 * Math.min(largest, owned);
  const convert = isCompact(terms) ? 0 : 6 * owned;
  const { isTorch } = zero.optimizer;
  const update = isTorch ? torchStepBytes(terms) * owned - averaged : 0;
  const most = isTorch
    ? `${torchStepBytes(terms)} B * parameters that train / ranks, less averaged gradients`
    : convert >= norm
      ? '6 B * parameters that train / ranks'
      : '8 B * largest parameter of a rank: its norm in fp64';
  return [averagedItem(averaged, terms), derived('optimizer temporaries', Math.max(norm, convert, update), most)];
}

/** Of an update on the host. */
export function torchUpdateItem(elements: number, { zero }: Terms): MemoryItem {
  const { updateBytes } = zero.optimizer;
  return derived('optimizer temporaries', updateBytes * elements, `${updateBytes} B * parameters that are updated together`);
}

function wideInstant(name: InstantName, terms: Terms): readonly InstantItem[] {
  const { trained, owned, w, afterLoss, run, zero } = terms;
  const isForward = name === 'embed' || name === 'layerForward';
  const elements = name === 'loss' ? afterLoss : isForward && run.gradientAccumulationSteps === 1 ? 0 : trained;
  const { updateBytes } = zero.optimizer;
  const update = name === 'optimizerStep' ? updateBytes * owned : 0;
  return [
    derived('gradients', w * elements, `${w} B * parameters that train`),
    derived('optimizer temporaries', update, `${updateBytes} B * parameters that train / ranks`),
    ...(isBackward(name) ? reductionItems(reductions(terms)[name]) : []),
  ];
}
