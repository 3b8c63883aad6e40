/**
 * What reducing gradients takes on the device beside the buckets, by instant, as DeepSpeed 0.19.8 does it: gradients of a module are there
 * together, go into a bucket one by one, and once the next would overflow it, are reduced in copies
 * (`__add_grad_to_ipg_bucket` and `__reduce_and_partition_ipg_grads` of zero/stage3.py, `reduce_independent_p_g_buckets_and_remove_grads` and
 * `reduce_ipg_grads` of zero/stage_1_and_2.py; measured on gloo ranks, python/tests/test_zero_memory.py).
 */
import { numWeightElements } from '../catalog/parameters.js';
import type { ParameterView } from '../spec/types.js';
import type { InstantName } from './items.js';
import { accumulatesWide, isCompact, type Terms } from './stateTerms.js';

/** Bytes. */
export interface Reduction {
  /** Gradients that wait for their reduction while ops run: of a bucket without a buffer, or too large for it. */
  readonly held: number;
  /** At the fullest moment, gradients beside those, and the copies that a reduction makes of its bucket. */
  readonly gradients: number;
  readonly copies: number;
  /** Some are reduced already in this instant, so that the rank's own are in a buffer of theirs. */
  readonly isReduced: boolean;
}

export type Reductions = Readonly<Partial<Record<InstantName, Reduction>>>;

type Module = readonly [InstantName, readonly ParameterView[]];

type Found = { -readonly [Key in keyof Reduction]: Reduction[Key] };

interface Bucket {
  elements: number;
  /** Each padded to the ranks. */
  padded: number;
  count: number;
  /** Bytes that are not in a buffer. */
  held: number;
  /** Bytes of the bucket before, where DeepSpeed lets go of them only at the next reduction. */
  before: number;
}

/** Of gradients that DeepSpeed reduces without ZeRO (`buffered_allreduce_fallback`, engine.py). */
const ELEMENTS_WITHOUT_ZERO = 5e8;
/** Gradients are normed in fp64 on their way to an optimizer on the host, as many at a time (`_constant_buffered_norm2`, zero/stage3.py). */
const NORM_ELEMENTS = 2.5e8;
const FP64 = 8;

/** `averaged`: bytes of the own part, which stage 1 makes once it has reduced a bucket. */
export function reductions(terms: Terms, averaged = 0): Reductions {
  const { stage } = terms.zero;
  if (stage === 0 || accumulatesWide(terms)) return atTheEnd(terms);
  if (stage > 1) return walk(terms, modules(terms), 0);
  // Stage 1 reduces what all micro-steps have accumulated, after the last one's backward.
  return walk(terms, [['gradientReduce', modules(terms).flatMap(([, views]) => views)]], averaged);
}

/** In the order of backward. What does not train has no gradient. */
function modules({ parameters, classOf }: Terms): readonly Module[] {
  const trained = (views: readonly ParameterView[]): readonly ParameterView[] => views.filter(({ trainable }) => trainable);
  const layers = parameters.layers.map(({ weights }) => trained(weights));
  return [
    ['loss', trained(parameters.head)],
    ...classOf.toReversed().map((kind): Module => ['layerBackward', layers[kind] ?? []]),
    ['gradientReduce', trained(parameters.embed)],
  ];
}

function walk(terms: Terms, order: readonly Module[], averaged: number): Reductions {
  const { w, zero } = terms;
  const found: Partial<Record<InstantName, Found>> = {};
  const bucket: Bucket = { elements: 0, padded: 0, count: 0, held: 0, before: 0 };
  let last = nothing(false);
  for (const [instant, views] of order) {
    if (views.length === 0) continue;
    last = found[instant] ??= nothing(last.isReduced);
    let left = w * numWeightElements(views);
    last.held = Math.max(last.held, bucket.held + bucket.before);
    keepFullest(last, left + bucket.held + bucket.before, 0);
    for (const { numel } of views) {
      if (bucket.elements > 0 && bucket.elements + numel > zero.reduceBucketElements) {
        const reduced = last.isReduced ? averaged : 0;
        keepFullest(last, left + bucket.held + bucket.before, copyBytes(bucket, terms) + reduced);
        empty(bucket, terms);
        last.isReduced = true;
        keepFullest(last, left, averaged);
      }
      left -= w * numel;
      add(bucket, numel, terms);
    }
  }
  keepFullest(last, bucket.held + bucket.before, copyBytes(bucket, terms) + averaged);
  last.isReduced = true;
  for (const one of Object.values(found)) one.gradients = Math.max(0, one.gradients - one.held);
  return found;
}

function nothing(isReduced: boolean): Found {
  return { held: 0, gradients: 0, copies: 0, isReduced };
}

function keepFullest(found: Found, gradients: number, copies: number): void {
  if (gradients + copies <= found.gradients + found.copies) return;
  found.gradients = gradients;
  found.copies = copies;
}

function add(bucket: Bucket, numel: number, { w, zero, numRanks }: Terms): void {
  bucket.elements += numel;
  bucket.padded += numRanks * Math.ceil(numel / numRanks);
  bucket.count += 1;
  if (!zero.contiguousGradients || bucket.elements > zero.reduceBucketElements) bucket.held += w * numel;
}

function empty(bucket: Bucket, { zero }: Terms): void {
  bucket.before = zero.stage < 3 && zero.overlapComm && !zero.contiguousGradients ? bucket.held : 0;
  bucket.elements = bucket.padded = bucket.count = bucket.held = 0;
}

function copyBytes(bucket: Bucket, terms: Terms): number {
  if (bucket.count === 0) return 0;
  return terms.zero.stage === 3 ? scatterBytes(bucket, terms) + offloadBytes(terms) : sliceBytes(bucket, terms) + offloadBytes(terms);
}

/**
 * Stage 3: the bucket made one padded tensor (`reduce_scatter_coalesced`, comm/coalesced_collectives.py), or the all-reduced one times a
 * number; in another dtype what is not in the bucket's buffer is converted before, and the own part after.
 */
function scatterBytes({ elements, padded, count, held }: Bucket, { w, g, c, converts, zero, numRanks }: Terms): number {
  const own = c === g ? 0 : (g * padded) / numRanks;
  if (zero.contiguousGradients && !zero.reduceScatter && held === 0) return (numRanks === 1 ? 0 : c * elements) + own;
  const whole = count === 1 && elements % numRanks === 0 ? 0 : c * padded;
  return (converts ? (c * held) / w : 0) + whole + own;
}

/** Stages 1 and 2: slices by owner made one tensor (`allreduce_bucket`), that in the dtype it travels in, and one of its parts in fp32. */
function sliceBytes({ elements, count, held }: Bucket, terms: Terms): number {
  const { w, c, converts, zero, numRanks, largest, owned } = terms;
  const isOne = zero.contiguousGradients && (!zero.reduceScatter || numRanks === 1);
  const alone = !zero.contiguousGradients && count === 1 && held > 0;
  const own = isCompact(terms) && c < 4 ? 4 * Math.min(largest, owned, elements) : 0;
  return (isOne || alone ? 0 : w * elements) + (converts ? c * elements : 0) + own;
}

function offloadBytes({ zero, largest, owned, numRanks }: Terms): number {
  if (!zero.offloadOptimizer) return 0;
  const part = zero.stage === 3 ? Math.min(NORM_ELEMENTS, Math.ceil(largest / numRanks)) : Math.min(largest, owned);
  return FP64 * part;
}

/**
 * Without ZeRO gradients are flattened as many at a time, after backward. BF16_Optimizer of stage 1 takes as much again as they have
 * (measured; DeepSpeed's engine traced at full scale).
 */
function atTheEnd({ trained, largest, w, c, converts, zero }: Terms): Reductions {
  const elements = Math.min(trained, ELEMENTS_WITHOUT_ZERO + largest);
  const copies = zero.stage === 0 ? w * elements + (converts ? c * elements : 0) : w * trained;
  return { gradientReduce: { ...nothing(false), copies } };
}
