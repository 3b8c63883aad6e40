/**
 * Ops on a rank's own tokens: projections, MLP, and their gradients. Temporaries are the maximum over the moments of an op at
 * which most is alive; each moment lists its tensors. They reproduce a tracker of live storages on the worker's handlers, to the
 * byte. Letters as in sizes.ts; `t` rows. A backward op reruns its forward under autograd tile by tile and adds the weight
 * gradients of a tile into their region before the next begins, so nothing outlives a tile.
 */
import { drawTokens, type OpFacts, type OpRow } from './row.js';
import type { OpSizes } from './sizes.js';

const queryFlops = ({ rows, sizes: { h, q } }: OpFacts): number => 2 * rows * h * q;
const keyValueFlops = ({ rows, sizes: { h, kv } }: OpFacts): number => 2 * rows * h * 2 * kv;
const preFlops = (facts: OpFacts): number => queryFlops(facts) + keyValueFlops(facts);
const postFlops = (facts: OpFacts): number => queryFlops(facts) + 2 * facts.rows * 3 * facts.sizes.h * facts.sizes.f;

/**
 * Kernels as counted on the Llama family in bf16: norm and the angles 17; a projection, its rotation and its copy 7, without
 * rotation 2. The backward ones rerun their forward.
 */
const ANGLE_KERNELS = 17;
const ROTATED_KERNELS = 7;
const VALUE_KERNELS = 2;

const common = {
  stream: 'compute',
  pairs: false,
  external: false,
  tiled: true,
  onChip: false,
  deterministic: true,
  draw: drawTokens,
} as const;

export const pre: OpRow = {
  ...common,
  reads: ['x', 'positions'],
  writes: ['q', 'k', 'v'],
  accumulates: [],
  roughly: 'q, k, v = rope(proj(norm1(x)))',
  temporaries: ({ rows, sizes }) => rows * projections(sizes, sizes.q, sizes.kv),
  flops: (facts) => ({ matmulFlops: preFlops(facts) }),
  weightElements: ({ preElements }) => preElements,
  kernels: () => ANGLE_KERNELS + 2 * ROTATED_KERNELS + VALUE_KERNELS,
};

export const preQ: OpRow = {
  ...common,
  reads: ['x', 'positions'],
  writes: ['q'],
  accumulates: [],
  roughly: 'only q of pre',
  temporaries: ({ rows, sizes }) => rows * projections(sizes, sizes.q, 0),
  flops: (facts) => ({ matmulFlops: queryFlops(facts) }),
  weightElements: ({ preElements }) => preElements,
  kernels: () => ANGLE_KERNELS + ROTATED_KERNELS,
};

export const preKv: OpRow = {
  ...common,
  reads: ['x', 'positions'],
  writes: ['k', 'v'],
  accumulates: [],
  roughly: 'only k, v of pre',
  temporaries: ({ rows, sizes }) => rows * projections(sizes, 0, sizes.kv),
  flops: (facts) => ({ matmulFlops: keyValueFlops(facts) }),
  weightElements: ({ preElements }) => preElements,
  kernels: () => ANGLE_KERNELS + ROTATED_KERNELS + VALUE_KERNELS,
};

export const post: OpRow = {
  ...common,
  reads: ['x', 'o'],
  writes: ['y'],
  accumulates: [],
  roughly: 'y = x + oProj(o); y = y + mlp(norm2(y))',
  temporaries: ({ rows, sizes }) => {
    const { w, h, f } = sizes;
    return rows * Math.max(w * h + normBytes(sizes), w * (2 * h + 3 * f), w * (3 * h + f), w * 4 * h);
  },
  flops: (facts) => ({ matmulFlops: postFlops(facts) }),
  weightElements: ({ postElements }) => postElements,
  kernels: () => 17,
};

export const postBwd: OpRow = {
  ...common,
  reads: ['x', 'o'],
  writes: ['do'],
  accumulates: ['dx', 'wgrad'],
  roughly: 'rerun post under autograd; dx becomes the residual part',
  temporaries: ({ rows, sizes }) => postBackward(sizes, rows),
  flops: (facts) => ({ matmulFlops: 3 * postFlops(facts) }),
  weightElements: ({ postElements }) => 2 * postElements,
  kernels: () => 52,
};

export const preBwd: OpRow = {
  ...common,
  reads: ['x', 'positions', 'dq', 'dk', 'dv'],
  writes: [],
  accumulates: ['dx', 'wgrad'],
  roughly: 'rerun pre under autograd',
  temporaries: ({ rows, sizes }) => preBackward(sizes, rows),
  flops: (facts) => ({ matmulFlops: 3 * preFlops(facts) }),
  weightElements: ({ preElements }) => 2 * preElements,
  kernels: () => 76,
};

/** LlamaRMSNorm per row: two fp32 rows (the copy or the product, and the square) and the fp32 scalars. */
function normBytes({ w, h }: OpSizes): number {
  return 8 * h + (w < 4 ? 8 : 4);
}

/**
 * Per row: the norm; or norm1(x), cos and sin beside the tensors of RoPE at its widest: while q is rotated (q, its two products
 * and the rotated half; k), or while k is (q before and after; k likewise four), or at the end (all five results and inputs).
 */
function projections(s: OpSizes, q: number, kv: number): number {
  const rotation = Math.max(q === 0 ? 0 : 4 * q + kv, 2 * q + 4 * kv);
  return Math.max(normBytes(s), s.w * (s.h + 2 * s.d + rotation));
}

/**
 * The backward of post, from its end to its start: of down_proj (the MLP's four wide saved tensors and two wide gradients), of
 * norm2 (fp32 rows; all gradients of the MLP's weights), of o_proj (all weight gradients).
 */
function postBackward({ w, h, f, q, postElements }: OpSizes, t: number): number {
  const down = t * (w * (3 * h + 6 * f) + 4 * h + 4) + w * f * h;
  const norm = t * (w < 4 ? 26 : 28) * h + w * (3 * f * h + h);
  const output = t * w * (2 * h + q) + w * postElements;
  return Math.max(down, norm, output);
}

/**
 * The backward of pre: of RoPE and v_proj (saved q, k with their products, upstream gradients in the model dtype), of k_proj, and
 * of norm1 (fp32 rows; all weight gradients). In fp32 the upstream gradients need no copy and norms no cast.
 */
function preBackward({ w, h, d, q, kv, preElements }: OpSizes, t: number): number {
  if (w < 4) {
    const value = t * (10 * h + 10 * q + 10 * kv + 2 * d + 4) + w * kv * h;
    const norm = t * (24 * h + 4 * q + 8 * kv) + w * preElements;
    return Math.max(value, norm);
  }
  const value = t * (12 * h + 16 * q + 12 * kv + 4 * d + 4) + w * kv * h;
  const key = t * (20 * h + 8 * q + 8 * kv + 4) + 2 * w * kv * h;
  const norm = t * (20 * h + 4 * q + 8 * kv) + w * preElements;
  return Math.max(value, key, norm);
}
