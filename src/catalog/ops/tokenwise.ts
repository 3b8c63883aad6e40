/**
 * Ops on a rank's own tokens: what stands before and after attention in a layer, and their gradients. What they compute and cost is the
 * model's code. A backward op forms again what it needs, tile by tile, and adds the weight gradients of a tile into their region
 * before the next begins, so nothing outlives a tile.
 */
import type { LayerCodeName } from './codeCosts.js';
import { drawTokens, type OpRow } from './row.js';

const common = {
  stream: 'compute',
  pairs: false,
  external: false,
  tiled: true,
  deterministic: true,
  draw: drawTokens,
} as const;

type Costs = Pick<OpRow, 'temporaries' | 'flops' | 'weightBytes' | 'elementBytes' | 'kernels'>;

/** Of the model's code of that name: of the layers' mean where their kinds differ, but for memory, of which the largest counts. */
function costs(code: LayerCodeName): Costs {
  return {
    temporaries: ({ rows, sizes }) => sizes.code.peakBytes(code, rows),
    flops: ({ rows, sizes }) => ({ matmulFlops: sizes.code.work(code, rows).matmulFlops }),
    weightBytes: ({ rows, sizes }) => sizes.code.work(code, rows).weightBytes,
    elementBytes: ({ rows, sizes }) => sizes.code.work(code, rows).elementBytes,
    kernels: ({ rows, sizes }) => sizes.code.work(code, rows).kernels,
  };
}

export const pre: OpRow = {
  ...common,
  ...costs('pre'),
  reads: ['x', 'positions'],
  writes: ['q', 'k', 'v'],
  accumulates: [],
  roughly: 'q, k, v = rope(proj(norm1(x)))',
};

export const preQ: OpRow = {
  ...common,
  ...costs('preQ'),
  reads: ['x', 'positions'],
  writes: ['q'],
  accumulates: [],
  roughly: 'only q of pre',
};

export const preKv: OpRow = {
  ...common,
  ...costs('preKv'),
  reads: ['x', 'positions'],
  writes: ['k', 'v'],
  accumulates: [],
  roughly: 'only k, v of pre',
};

export const post: OpRow = {
  ...common,
  ...costs('post'),
  reads: ['x', 'o'],
  writes: ['y'],
  accumulates: [],
  roughly: 'y = x + oProj(o); y = y + mlp(norm2(y))',
};

export const postKeep: OpRow = {
  ...common,
  ...costs('postKeep'),
  reads: ['x', 'o'],
  writes: ['y', 'kept'],
  accumulates: [],
  roughly: 'post, and the products that its reverse would form again',
};

export const postBwd: OpRow = {
  ...common,
  ...costs('postBwd'),
  reads: ['x', 'o'],
  writes: ['do'],
  accumulates: ['dx', 'wgrad'],
  roughly: 'what post needs again, and its reverse; dx becomes that of its input',
};

export const postBwdKept: OpRow = {
  ...common,
  ...costs('postBwdKept'),
  reads: ['x', 'o', 'kept'],
  writes: ['do'],
  accumulates: ['dx', 'wgrad'],
  roughly: 'postBwd without the products that were kept',
};

export const preBwd: OpRow = {
  ...common,
  ...costs('preBwd'),
  reads: ['x', 'positions', 'dq', 'dk', 'dv'],
  writes: [],
  accumulates: ['dx', 'wgrad'],
  roughly: 'what pre needs again, and its reverse',
};
