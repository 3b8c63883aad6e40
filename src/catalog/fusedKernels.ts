/**
 * Kernels beside attention by what they do. Each has a plain twin, operator by operator as Hugging Face's modules run; a plan names those
 * that are not plain. All are PyTorch's own operators put together so that less is made inside, and run on every device.
 */
import type { ModelDtype } from '../spec/dtype.js';
import { type KernelChoices, PLAIN } from '../spec/kernelChoices.js';

export interface FusedKernels {
  /** `inplace`: logits become their gradients, block by block in fp32. */
  readonly loss?: 'inplace';
  /** `lerp`: one pass over an output for each partial one. */
  readonly merge?: 'lerp';
  /** `vectornorm`: an rms norm that writes no squares down. */
  readonly norm?: 'vectornorm';
  /** `addcmul`: a product and its sum with another in one pass, rounded once. */
  readonly rope?: 'addcmul';
  /** `inplace`: a result takes the memory of a value that nothing after it reads. */
  readonly elementwise?: 'inplace';
  /** `blocks`: a product of a half dtype is added to its fp32 region block by block. */
  readonly weightGradient?: 'blocks';
  /** Of one of those blocks; a row where it is larger. */
  readonly blockBytes: number;
}

type NamedKernels = Omit<FusedKernels, 'blockBytes'>;
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
 * nothing either. Plain ones are left out.
 */
export function fusedKernels(dtype: ModelDtype, asked: KernelChoices = {}): FusedKernels {
  const { loss, weightGradient, ...ofAll } = FUSED_KERNELS;
  const better = { ...(dtype === 'float32' ? {} : { loss, weightGradient }), ...ofAll };
  const named = Object.entries({ ...better, ...asked }).filter(([, name]) => name !== PLAIN);
  return { ...(Object.fromEntries(named) as NamedKernels), blockBytes: BLOCK_BYTES };
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
