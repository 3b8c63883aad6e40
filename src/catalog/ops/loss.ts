/** Cross entropy at the end of the layers, with its gradients or without. What it costs follows the plan's kernel. */
import { headProduct } from './headProduct.js';
import { IN_PLACE, type LossKernel } from './lossInPlace.js';
import { drawTokens, type OpRow } from './row.js';
import type { OpSizes } from './sizes.js';

const common = { stream: 'compute', pairs: false, external: false, tiled: true, deterministic: true, draw: drawTokens } as const;

const LOSS_READS = ['x', 'labels'] as const;

export const loss: OpRow = {
  ...common,
  reads: LOSS_READS,
  writes: ['dx'],
  accumulates: ['lossSum', 'wgrad', 'wgradLmHead'],
  roughly: 'cross entropy of norm(x) @ lmHead, and its gradients',
  temporaries: ({ rows, sizes }) => kernelOf(sizes).bytes(sizes, rows),
  /** Logits, and a product for each of their gradients. */
  flops: ({ rows, sizes: { h, v, trainsLmHead } }) => ({ matmulFlops: (trainsLmHead ? 3 : 2) * 2 * rows * h * v }),
  weightBytes: ({ sizes: { w, h, v, trainsLmHead } }) => (trainsLmHead ? 3 : 2) * w * h * v,
  elementBytes: ({ rows, sizes }) => kernelOf(sizes).traffic(sizes, rows),
  kernels: ({ rows, sizes }) => kernelOf(sizes).kernels(sizes, rows),
};

/** Of plans for packing. */
export const lossWeighted: OpRow = {
  ...loss,
  reads: [...LOSS_READS, 'weights'],
  roughly: 'the same, the loss of each token times its weight',
  temporaries: (facts) => loss.temporaries(facts) + kernelOf(facts.sizes).weightBytes * facts.rows,
  /** The rows' weights, in the dtype of the scores, and their losses times them. */
  elementBytes: (facts) => loss.elementBytes(facts) + 24 * facts.rows,
  kernels: (facts) => loss.kernels(facts) + 2,
};

export const lossOnly: OpRow = {
  ...common,
  reads: ['x', 'labels'],
  writes: [],
  accumulates: ['lossSum'],
  roughly: 'cross entropy of norm(x) @ lmHead, without gradients',
  temporaries: ({ rows, sizes }) => kernelOf(sizes).bytesOnly(sizes, rows),
  flops: ({ rows, sizes: { h, v } }) => ({ matmulFlops: 2 * rows * h * v }),
  weightBytes: ({ sizes: { w, h, v } }) => w * h * v,
  elementBytes: ({ rows, sizes }) => kernelOf(sizes).trafficOnly(sizes, rows),
  kernels: ({ rows, sizes }) => kernelOf(sizes).kernelsOnly(sizes, rows),
};

const PLAIN: LossKernel = {
  bytes: plainBytes,
  /** Of weights: the share of each row times its own. */
  weightBytes: 4,
  traffic: plainTraffic,
  kernels: () => 21,
  bytesOnly: plainBytesOnly,
  trafficOnly: plainTrafficOnly,
  kernelsOnly: () => 13,
};

function kernelOf({ kernels }: OpSizes): LossKernel {
  return kernels.fused?.loss === undefined ? PLAIN : IN_PLACE;
}

/**
 * The last norm; cross entropy (logits, their fp32 copy, which becomes the gradient, and its cast; on CUDA also the exponentials
 * inside logsumexp; with a softcap its tanh); lm_head's gradient where dtypes differ; and the reverse of the norm.
 */
function plainBytes(sizes: OpSizes, t: number): number {
  const { w, h, v, cuda, softcap, code } = sizes;
  const half = w < 4;
  const scores = half ? Math.max(w + 4 + w, cuda ? w + 4 + 4 : 0) : cuda ? 4 + 4 : 4;
  const capped = softcap ? w * v : 0;
  const entropy = t * (scores * v + capped + w * h + 25);
  const cap = softcap ? t * (3 * w * v + w * h + 8) : 0;
  const headGradient = t * (w * v + 2 * w * h + 8) + headProduct(sizes).bytes;
  const norm = t * (w * h + 8) + code.peakBytes('headBwd', t);
  return Math.max(code.peakBytes('head', t), entropy, cap, headGradient, norm);
}

/**
 * Kernel by kernel as python/fpdt/ops/loss.py runs them: logits to fp32, logsumexp (on CUDA its maximum, difference, exponential and
 * sum), the gradient (difference, exponential, factor) and its cast; a softcap's way there and back; the sum of lm_head's gradient;
 * the norm and its reverse.
 */
function plainTraffic(sizes: OpSizes, t: number): number {
  const { w, v, cuda, softcap, code } = sizes;
  const half = w < 4;
  const casts = half ? 2 * (w + 4) : 0;
  const logSumExp = cuda ? 4 + 8 + 8 + 4 : 8;
  const gradient = 8 + 8 + 8;
  const capped = softcap ? (2 + 2 + 2) * w + (2 + 2 + 3) * w : 0;
  const norm = code.work('head', t).elementBytes + code.work('headBwd', t).elementBytes;
  return t * v * (casts + logSumExp + gradient + capped) + headProduct(sizes).elementBytes + norm;
}

/**
 * Labels as targets, and where there are any, all along; the last norm; its output and logits; logits and their fp32 copy where they are of
 * another dtype; scores, on CUDA with the exponentials inside logsumexp, and what is made of one a row.
 */
function plainBytesOnly({ w, h, v, cuda, code }: OpSizes, t: number): number {
  const targets = 8 + 1;
  const copied = w < 4 ? (w + 4) * v : 0;
  const scores = (cuda ? 4 + 4 : 4) * v + 9;
  return targets * t + Math.max(code.peakBytes('head', t), t * Math.max(w * (h + v), copied, scores));
}

/** As `plainTraffic`, without what forms gradients; a softcap's division, tanh and product are in place. */
function plainTrafficOnly({ w, v, cuda, softcap, code }: OpSizes, t: number): number {
  const cast = w < 4 ? w + 4 : 0;
  const logSumExp = cuda ? 4 + 8 + 8 + 4 : 8;
  const capped = softcap ? (2 + 2 + 2) * w : 0;
  return t * v * (cast + logSumExp + capped) + code.work('head', t).elementBytes;
}
