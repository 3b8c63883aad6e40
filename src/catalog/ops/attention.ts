/** Attention over a range of keys, its merge with other ranges, and its gradients. Views are head-sharded: all tokens, own heads. */
import { type Blocks, blocksOf } from '../fusedKernels.js';
import { kernelNamed } from '../kernels.js';
import { attentionTemporaries } from './attentionTemporaries.js';
import { maskPairs } from './masks.js';
import { type DrawnChunks, drawTokens, NO_FLOPS, NONE, type OpFacts, type OpRow } from './row.js';
import { rowsOf } from './views.js';

const common = { stream: 'compute', pairs: false, external: false, tiled: false } as const;

/** Bytes of a number. */
const FP32 = 4;

const drawPair = (kind: string, { tokens, kv }: DrawnChunks): string => `${kind} q${tokens} k${kv}`;

export const attn: OpRow = {
  ...common,
  reads: ['q', 'k', 'v'],
  writes: ['o', 'lse'],
  accumulates: [],
  roughly: 'attention of q over k, v under its mask; partial, or final where it is the only range',
  temporaries: (facts) => attentionTemporaries(facts.sizes.kernels.attn).forward(facts),
  flops: (facts) => ({ attentionForwardFlops: forwardFlops(facts, facts.sizes.kernels.attn) }),
  /** lse of the kernel is copied into its view, and o where the kernel cannot put it there. */
  elementBytes: (facts) => {
    const { rows, sizes } = facts;
    const output = kernelNamed(sizes.kernels.attn).writesOutput ? 0 : 2 * sizes.w * sizes.ownQ;
    return rows * (output + 8 * sizes.ownHeads) + scoreBytes(facts, sizes.kernels.attn, 'forward');
  },
  kernels: ({ sizes }) => (kernelNamed(sizes.kernels.attn).writesOutput ? 2 : 3),
  deterministic: true,
  draw: drawPair,
};

export const mergeFirst: OpRow = {
  ...common,
  reads: ['oPart', 'lsePart'],
  writes: ['oAcc', 'lse'],
  accumulates: [],
  roughly: 'oAcc = oPart, lse = lsePart, in fp32',
  temporaries: NONE,
  flops: NO_FLOPS,
  elementBytes: ({ rows, sizes: { w, ownQ, ownHeads } }) => rows * ((w + 4) * ownQ + 8 * ownHeads),
  kernels: () => 2,
  deterministic: true,
  draw: drawTokens,
};

export const merge: OpRow = {
  ...common,
  reads: ['oPart', 'lsePart'],
  writes: [],
  accumulates: ['oAcc', 'lse'],
  roughly: 'online merge of two partial results by lse',
  temporaries: (facts) => (isPlain(facts) ? plainMergeBytes(facts) : lerpBytes(facts)),
  flops: NO_FLOPS,
  elementBytes: (facts) => {
    const { w, ownQ, ownHeads } = facts.sizes;
    const cast = w < FP32 ? w + FP32 : 0;
    // Rescaled, and added with its scale; or both in one pass. Passes by row and head, most of two numbers and a result.
    return facts.rows * (isPlain(facts) ? (20 + cast) * ownQ + 68 * ownHeads : (12 + cast) * ownQ + 52 * ownHeads);
  },
  kernels: (facts) => (isPlain(facts) ? 9 : 6 + (facts.sizes.w < FP32 ? 2 * mergeBlocks(facts).count - 1 : 0)),
  deterministic: true,
  draw: drawTokens,
};

function isPlain({ sizes: { kernels } }: OpFacts): boolean {
  return kernels.fused?.merge === undefined;
}

/** The new lse, a difference and its exponential; the partial output in fp32. */
function plainMergeBytes({ rows, sizes: { w, ownQ, ownHeads } }: OpFacts): number {
  return rows * ((w < FP32 ? FP32 * ownQ : 0) + 3 * FP32 * ownHeads);
}

/** The new lse and the share of the partial output; then the share, and a block of that output in fp32. */
function lerpBytes(facts: OpFacts): number {
  const { rows, sizes } = facts;
  const share = FP32 * sizes.ownHeads * rows;
  return Math.max(2 * share, share + (sizes.w < FP32 ? FP32 * sizes.ownQ * mergeBlocks(facts).rows : 0));
}

function mergeBlocks({ rows, sizes: { ownQ, kernels } }: OpFacts): Blocks {
  return blocksOf(rows, FP32 * ownQ, kernels.fused);
}

export const attnBwd: OpRow = {
  ...common,
  reads: ['q', 'k', 'v', 'o', 'lse', 'do'],
  writes: [],
  accumulates: ['dq', 'dk', 'dv'],
  roughly: 'attention backward with the final o and lse',
  temporaries: (facts) => attentionTemporaries(facts.sizes.kernels.attnBwd).backward(facts),
  flops: (facts) => ({ attentionBackwardFlops: 2.5 * forwardFlops(facts, facts.sizes.kernels.attnBwd) }),
  elementBytes: (facts) => gradientBytes(facts) + scoreBytes(facts, facts.sizes.kernels.attnBwd, 'backward'),
  /** The kernel's three, sums over the heads of a group, three additions. */
  kernels: ({ sizes: { ownQ, ownKv } }) => 6 + (ownQ === ownKv ? 0 : 2),
  deterministic: false,
  whyNot: 'FlashAttention and cuDNN add the parts of dq with atomics on CUDA',
  draw: drawPair,
};

/**
 * Forward 4 * pairs * heads * headDim; backward 2.5 times that (FlashAttention-2, which recomputes the scores), where pairs are
 * those that the mask leaves; `reference` forms the others too. Padded heads are computed like any other.
 */
function forwardFlops({ op, attribute, sizes: { ownQ } }: OpFacts, kernel: string): number {
  const mask = kernel === 'reference' ? ({ kind: 'full' } as const) : (attribute.mask ?? ({ kind: 'causal' } as const));
  return 4 * maskPairs(mask, op.tokens, op.kv ?? op.tokens) * ownQ;
}

/** dq, dk, dv added to their fp32 views; on CUDA sums over the query heads of a group. */
function gradientBytes({ op, rows, sizes: { w, ownQ, ownKv, cuda } }: OpFacts): number {
  const keys = rowsOf(op.kv);
  const perGroup = cuda && ownQ !== ownKv ? 2 * w * keys * (ownQ + ownKv) : 0;
  return (w + 8) * (rows * ownQ + 2 * keys * ownKv) + perGroup;
}

/** Passes of `reference` over its matrices of scores: scaled, masked, and in forward logsumexp, in backward the two gradients. */
const SCORE_PASSES = { forward: 14, backward: 15 } as const;

function scoreBytes({ op, rows, sizes: { ownHeads } }: OpFacts, kernel: string, direction: keyof typeof SCORE_PASSES): number {
  return kernel === 'reference' ? 4 * SCORE_PASSES[direction] * rows * rowsOf(op.kv) * ownHeads : 0;
}
