/**
 * Kernels beside attention that are not plain, operator by operator as Hugging Face's modules run (spec/kernelChoices.ts says what each does). All are
 * PyTorch's own operators put together so that less is made inside, and run on every device, but for `addmm`.
 */
import type { ModelDtype } from '../spec/dtype.js';
import { FpdtError } from '../spec/errors.js';
import { type KernelChoices, type NamedKernels, PLAIN } from '../spec/kernelChoices.js';
import type { ClusterSpec } from '../spec/types.js';

export interface FusedKernels extends NamedKernels {
  /** Of a block of kernels that work block by block; a row where it is larger. */
  readonly blockBytes: number;
}

/** What plans take by themselves, by kind. */
export const FUSED_KERNELS = {
  loss: 'inplace',
  merge: 'lerp',
  norm: 'vectornorm',
  rope: 'addcmul',
  elementwise: 'inplace',
  weightGradient: 'blocks',
} as const satisfies Required<NamedKernels>;

/** Large enough that launches do not count, small beside logits and weights of large models. */
const BLOCK_BYTES = 64 * 2 ** 20;

/**
 * Of each kind what is asked for, else what is better than its twin: of fp32 the plain loss and the plain sum of weight gradients copy
 * nothing either. Plain ones are left out. Throws `unsupported` for one that the dtype or the device does not have.
 */
export function fusedKernels({ dtype, device }: FusedPlace, asked: KernelChoices = {}): FusedKernels {
  if (asked.weightGradient === 'addmm') checkAddmm({ dtype, device });
  const { loss, weightGradient, ...ofAll } = FUSED_KERNELS;
  const better = { ...(dtype === 'float32' ? {} : { loss, weightGradient }), ...ofAll };
  const named = Object.entries({ ...better, ...asked }).filter(([, name]) => name !== PLAIN);
  return { ...(Object.fromEntries(named) as NamedKernels), blockBytes: BLOCK_BYTES };
}

export interface FusedPlace {
  readonly dtype: ModelDtype;
  readonly device: ClusterSpec['device'];
}

function checkAddmm({ dtype, device }: FusedPlace): void {
  if (device === 'cuda' && dtype !== 'float32') return;
  const lack = device === 'cuda' ? 'is for bfloat16 and float16: products in float32 add to their regions anyway' : 'runs on GPUs alone';
  const hint = device === 'cuda' ? 'leave it out of --kernels' : 'use weightGradient=blocks, or leave it out of --kernels';
  throw new FpdtError(`the kernel 'addmm' for weightGradient ${lack}`, { code: 'unsupported', hint });
}

/** By kind, those that are not plain. */
export function namedKernels(kernels: FusedKernels): NamedKernels {
  const { blockBytes: _, ...named } = kernels;
  return named;
}

export interface Blocks {
  /** Of the largest. */
  readonly rows: number;
  readonly count: number;
}

/** Twin of `blocks` in python/fpdt/models/fused.py. Of a kernel that knows none it is all rows. */
export function blocksOf(rows: number, rowBytes: number, kernels: FusedKernels | undefined): Blocks {
  const most = kernels === undefined ? rows : Math.min(rows, Math.floor(kernels.blockBytes / rowBytes));
  return { rows: Math.max(1, most), count: Math.ceil(rows / Math.max(1, most)) };
}

/** Bytes of fp32. */
const WIDE = 4;

/** What it takes to add a weight's gradient to its fp32 region. */
export interface RegionSum {
  /** Of what is made at most. */
  readonly bytes: number;
  /** The product's among them. */
  readonly kernels: number;
  /** Read and written by element, beside what a product into memory of its own dtype does. */
  readonly elementBytes: number;
}

/** Of [rows, columns] in a dtype of `w` bytes. Twin of `add_product` in python/fpdt/models/fused.py. */
export function regionSum(rows: number, columns: number, w: number, kernels: FusedKernels | undefined): RegionSum {
  if (w >= WIDE || kernels?.weightGradient === 'addmm') return { bytes: 0, kernels: 1, elementBytes: 0 };
  const blocks = blocksOf(rows, w * columns, kernels?.weightGradient === undefined ? undefined : kernels);
  return { bytes: w * columns * blocks.rows, kernels: 2 * blocks.count, elementBytes: w + 2 * WIDE };
}
