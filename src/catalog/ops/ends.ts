/** What stands at the ends of the decoder layers and of a step: embedding, and the hand-over of weight gradients. */
import { drawKind, drawTokens, NO_FLOPS, NONE, type OpRow } from './row.js';
import { rowsOf } from './views.js';

const common = { stream: 'compute', pairs: false, external: false, tiled: false } as const;

export const embed: OpRow = {
  ...common,
  reads: ['tokenIds', 'positions'],
  writes: ['x'],
  accumulates: [],
  roughly: 'x = embedding(tokenIds), and of positions where they are learned',
  temporaries: ({ rows, sizes }) => sizes.code.peakBytes('embed', rows),
  flops: NO_FLOPS,
  elementBytes: ({ rows, sizes }) => sizes.code.work('embed', rows).elementBytes,
  kernels: ({ rows, sizes }) => sizes.code.work('embed', rows).kernels,
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
  elementBytes: NONE,
  kernels: NONE,
  deterministic: true,
  draw: drawKind,
};

export const embedBwd: OpRow = {
  ...common,
  reads: ['dx', 'tokenIds', 'positions'],
  writes: [],
  accumulates: ['wgrad'],
  roughly: 'scatter-add dx into the embedding gradient',
  temporaries: ({ rows, sizes }) => sizes.code.peakBytes('embedBwd', rows),
  flops: NO_FLOPS,
  elementBytes: ({ rows, sizes }) => sizes.code.work('embedBwd', rows).elementBytes,
  kernels: ({ rows, sizes }) => sizes.code.work('embedBwd', rows).kernels,
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
  elementBytes: ({ rows, sizes: { w } }) => rows * (4 + w),
  kernels: ({ op, sizes: { layerTensors } }) => layerTensors.get(rowsOf(op.reads[0]?.rows)) ?? 2,
  deterministic: true,
  draw: drawKind,
};
