/**
 * Attention by chip, kernel and head dim, in TFLOP/s forward and backward on bf16: what long rows reach. A kernel without a row for a
 * chip is not chosen there; what a run may ask for is in kernels.ts.
 */
import type { AttentionRate } from '../spec/types.js';

type Row = readonly [kernel: string, headDim: number, forward: number, backward: number];

/**
 * FlashAttention-2 (arXiv 2307.08691), figure of forward and backward together at 16k tokens, causal; on an A100. The paper's parts
 * differ little from each other.
 */
const A100: readonly Row[] = [
  ['flash2', 64, 171, 171],
  ['flash2', 128, 189, 189],
];

/** FlashAttention-3 (arXiv 2407.08608), figures of forward and backward at 16k tokens without a mask; on an H100 SXM5. */
const H100: readonly Row[] = [
  ['flash2', 64, 324, 291],
  ['flash2', 128, 370, 322],
  ['cudnn', 64, 413, 433],
  ['cudnn', 128, 595, 516],
  ['flash3', 64, 497, 474],
  ['flash3', 128, 648, 561],
];

/**
 * FlashAttention-4 (arXiv 2603.05451): 1605 forward, 1.3 times cuDNN 9.13. Backward assumed two thirds of forward, a head dim of 64 as much
 * slower as on an H100. FlashAttention-2 uses instructions of an A100: assumed as on an H100.
 */
const B200: readonly Row[] = [
  ['flash2', 64, 324, 291],
  ['flash2', 128, 370, 322],
  ['cudnn', 64, 857, 688],
  ['cudnn', 128, 1235, 820],
  ['flash4', 64, 1231, 904],
  ['flash4', 128, 1605, 1070],
];

/** Assumed: below an A100's share of what products reach (0.7), as the kernels of ROCm are younger. */
const MI300X: readonly Row[] = [
  ['flash2', 64, 260, 180],
  ['flash2', 128, 300, 200],
];

const CHIPS = { a100: A100, h100: H100, b200: B200, mi300x: MI300X } as const;

/** Times `factor`: of a card with less of the same chip, or with another one whose kernels reach the same share of the peak. */
export function attentionRates(chip: keyof typeof CHIPS, factor = 1): readonly AttentionRate[] {
  const tera = 1e12 * factor;
  return CHIPS[chip].map(([kernel, headDim, forward, backward]) => ({
    kernel,
    headDim,
    forwardFlops: forward * tera,
    backwardFlops: backward * tera,
  }));
}

/**
 * Keys that a query sees at which attention has half of its rate: a tile of keys. FlashAttention-2 on an H100, in the figures above:
 * 58 to 80 forward without a mask, 100 to 150 with one, 160 to 260 backward.
 */
export const ATTENTION_HALF_KEYS = 128;
