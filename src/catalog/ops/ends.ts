/** What stands at the ends of the decoder layers and of a step: embedding, loss, and the hand-over of weight gradients. */
import { drawKind, drawTokens, NO_FLOPS, NONE, type OpRow } from './row.js';
import type { OpSizes } from './sizes.js';
import { rowsOf } from './views.js';

const common = { stream: 'compute', pairs: false, external: false, tiled: false, onChip: false, weightElements: NONE } as const;

export const embed: OpRow = {
  ...common,
  reads: ['tokenIds'],
  writes: ['x'],
  accumulates: [],
  roughly: 'x = embedding(tokenIds)',
  /** The gathered rows, before they are copied into the arena. */
  temporaries: ({ rows, sizes: { w, h } }) => rows * w * h,
  flops: NO_FLOPS,
  kernels: () => 2,
  deterministic: true,
  draw: drawTokens,
};

export const loss: OpRow = {
  ...common,
  tiled: true,
  reads: ['x', 'labels'],
  writes: ['dx'],
  accumulates: ['lossSum', 'wgrad', 'wgradLmHead'],
  roughly: 'cross entropy of norm(x) @ lmHead, and its gradients',
  temporaries: ({ rows, sizes }) => lossBytes(sizes, rows),
  /** Logits, and two products for their gradients. */
  flops: ({ rows, sizes: { h, v } }) => ({ matmulFlops: 3 * 2 * rows * h * v }),
  weightElements: ({ v, h }) => 2 * v * h,
  kernels: () => 21,
  deterministic: true,
  draw: drawTokens,
};

export const rescale: OpRow = {
  ...common,
  reads: [],
  writes: [],
  accumulates: 'many',
  roughly: 'views *= quotient of the upstream gradient; nothing where that is 1, as it is unless the loss is scaled by hand',
  temporaries: NONE,
  flops: NO_FLOPS,
  kernels: NONE,
  deterministic: true,
  draw: drawKind,
};

export const embedBwd: OpRow = {
  ...common,
  reads: ['dx', 'tokenIds'],
  writes: [],
  accumulates: ['wgrad'],
  roughly: 'scatter-add dx into the embedding gradient',
  /** dx in fp32, before it is added to the rows of the tokens. */
  temporaries: ({ rows, sizes: { w, h } }) => (w < 4 ? rows * 4 * h : 0),
  flops: NO_FLOPS,
  kernels: () => 2,
  deterministic: false,
  whyNot: 'index_add_ adds the rows of equal tokens with atomics on CUDA',
  draw: drawTokens,
};

export const emitGrads: OpRow = {
  ...common,
  reads: ['wgrad'],
  writes: [],
  accumulates: [],
  roughly: 'cast weight gradients once and hand them to autograd',
  /** The gradients in the parameter dtype; they are autograd's once the op ends. */
  temporaries: ({ rows, sizes: { w } }) => rows * w,
  flops: NO_FLOPS,
  kernels: ({ op, sizes: { layerTensors, layerElements } }) => (rowsOf(op.reads[0]?.rows) === layerElements ? layerTensors : 2),
  deterministic: true,
  draw: drawKind,
};

/**
 * Three moments: cross entropy (logits, their fp32 copy, which becomes the gradient, and its cast; on CUDA also the exponentials
 * inside logsumexp), lm_head's gradient where dtypes differ, and the backward of the final norm.
 */
function lossBytes({ w, h, v, cuda }: OpSizes, t: number): number {
  const half = w < 4;
  const scores = half ? Math.max(w + 4 + w, cuda ? w + 4 + 4 : 0) : cuda ? 4 + 4 : 4;
  const entropy = t * (scores * v + 8 * h + 25);
  const headGradient = half ? t * (w * v + 10 * h + 8) + w * v * h : 0;
  const norm = t * (w * v + 28 * h + 4) + w * h;
  return Math.max(entropy, headGradient, norm);
}
