/**
 * The kernel `inplace` of cross entropy, tensor by tensor as python/fpdt/ops/loss_in_place.py runs it: logits in the model dtype become their gradients,
 * block by block of rows whose exponentials stand in fp32.
 */
import { type Blocks, blocksOf } from '../fusedKernels.js';
import { headProduct } from './headProduct.js';
import type { OpSizes } from './sizes.js';

/** Costs of `t` rows in one tile; `Only`: without gradients. Kernels are counted without those of the last norm. */
export interface LossKernel {
  readonly bytes: (sizes: OpSizes, t: number) => number;
  /** More of a row where losses have weights. */
  readonly weightBytes: number;
  readonly traffic: (sizes: OpSizes, t: number) => number;
  readonly kernels: (sizes: OpSizes, t: number) => number;
  readonly bytesOnly: (sizes: OpSizes, t: number) => number;
  readonly trafficOnly: (sizes: OpSizes, t: number) => number;
  readonly kernelsOnly: (sizes: OpSizes, t: number) => number;
}

export const IN_PLACE: LossKernel = { bytes, weightBytes: 0, traffic, kernels, bytesOnly, trafficOnly, kernelsOnly };

/** Bytes of fp32. */
const WIDE = 4;
/** Of a row: whether it is ignored, its target, the target's number and that of all; with gradients also its share of the loss, twice. */
const ROW = 1 + 8 + 2 * WIDE;

/** The last norm; its output, logits and a block; the gradients of both; the reverse of the norm. */
function bytes(sizes: OpSizes, t: number): number {
  const { w, h, v, softcap, code } = sizes;
  const bent = softcap && w < WIDE ? w * v : 0;
  const entropy = t * (w * h + w * v + ROW + 2 * WIDE) + blocks(sizes, t).rows * (scoreBytes(sizes) + Math.max(WIDE, bent));
  const gradients = t * (w * v + 2 * w * h) + headProduct(sizes).bytes;
  return Math.max(code.peakBytes('head', t), entropy, gradients, t * w * h + code.peakBytes('headBwd', t));
}

/** The last norm; its output, gone once there are logits; a block, and a row's largest score. */
function bytesOnly(sizes: OpSizes, t: number): number {
  const { w, h, v, code } = sizes;
  const entropy = t * (w * v + ROW) + blocks(sizes, t).rows * (scoreBytes(sizes) + WIDE);
  return Math.max(code.peakBytes('head', t), t * w * (h + v), entropy);
}

/** Of a row's scores in fp32, which the logits themselves are where no dtype and no softcap is between them. */
function scoreBytes(sizes: OpSizes): number {
  return copiesScores(sizes) ? WIDE * sizes.v : 0;
}

function copiesScores({ w, softcap }: OpSizes): boolean {
  return w < WIDE || softcap;
}

function blocks({ v, kernels: { fused } }: OpSizes, t: number): Blocks {
  return blocksOf(t, WIDE * v, fused);
}

/** Scores, share of the loss, and back into the logits; the sum of lm_head's gradient; the norm and its reverse. */
function traffic(sizes: OpSizes, t: number): number {
  const { w, v, softcap, code } = sizes;
  const cast = w < WIDE ? w + WIDE : 0;
  const back = softcap ? 9 * w + cast : cast;
  const norm = code.work('head', t).elementBytes + code.work('headBwd', t).elementBytes;
  return t * v * (scorePasses(sizes) + 2 * WIDE + back) + headProduct(sizes).elementBytes + norm;
}

function trafficOnly(sizes: OpSizes, t: number): number {
  return t * sizes.v * scorePasses(sizes) + sizes.code.work('head', t).elementBytes;
}

/**
 * By logit: a softcap's division and tanh, in the model dtype; to fp32, and there the softcap's product; the largest, the difference, the
 * exponential and the sum.
 */
function scorePasses(sizes: OpSizes): number {
  const { w, softcap } = sizes;
  const scores = (softcap ? 4 * w + 2 * WIDE : 0) + (copiesScores(sizes) ? w + WIDE : 0);
  return scores + (1 + 2 + 2 + 1) * WIDE;
}

function kernels(sizes: OpSizes, t: number): number {
  const { w, softcap } = sizes;
  const half = Number(w < WIDE);
  const ofBlock = scoreKernels(sizes) + 3 + half + (softcap ? 4 : 0);
  return 12 + (softcap ? 2 : 0) + blocks(sizes, t).count * ofBlock + headProduct(sizes).kernels;
}

function kernelsOnly(sizes: OpSizes, t: number): number {
  return 8 + (sizes.softcap ? 2 : 0) + blocks(sizes, t).count * scoreKernels(sizes);
}

/** To fp32, and a softcap's product; the largest, the difference, the target's, the exponential, the sum. */
function scoreKernels(sizes: OpSizes): number {
  return Number(copiesScores(sizes)) + Number(sizes.softcap) + 5;
}
