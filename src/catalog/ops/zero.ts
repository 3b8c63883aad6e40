/** What ZeRO does: placed and priced in the program, never a handler of ours. */
import { drawKind, NO_FLOPS, NONE, type OpRow } from './row.js';

const common = {
  reads: [],
  writes: [],
  accumulates: [],
  pairs: false,
  external: true,
  tiled: false,
  temporaries: NONE,
  flops: NO_FLOPS,
  elementBytes: NONE,
  kernels: () => 1,
  deterministic: true,
  draw: drawKind,
} as const;

export const gather: OpRow = { ...common, stream: 'comm', roughly: "gather the weights of the call's layer" };
export const release: OpRow = { ...common, stream: 'comm', roughly: "release the weights of the call's layer", kernels: NONE };
export const reduce: OpRow = { ...common, stream: 'comm', roughly: 'reduce weight gradients over the ranks' };
export const optimizerStep: OpRow = { ...common, stream: 'compute', roughly: 'update the weights' };
