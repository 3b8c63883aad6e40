/** Attention kernels by name, and what each can do. The plan splits and merges only what its kernel cannot. */
import { MODEL_DTYPES } from '../spec/dtype.js';
import { FpdtError } from '../spec/errors.js';
import { nearestKey } from '../spec/nearestKey.js';
import type { ClusterSpec, RunSpec } from '../spec/types.js';
import type { MaskShape } from './ops/views.js';

type Device = ClusterSpec['device'];

export interface AttentionKernel {
  readonly name: string;
  readonly devices: readonly Device[];
  readonly dtypes: readonly RunSpec['dtype'][];
  /** Causal masks with fewer queries than keys, aligned at the bottom right. Square ones every kernel has. */
  readonly rectangle: boolean;
  readonly window: boolean;
  /** Scores bounded by a tanh. */
  readonly softcap: boolean;
  readonly headDims: { readonly multipleOf: number; readonly atMost: number };
}

/** Implementations of the attention ops that the plan's masks, rates and temporaries assume; the worker obeys or refuses. */
export interface Kernels {
  readonly attn: string;
  readonly attnBwd: string;
}

const ANY = { multipleOf: 1, atMost: Number.MAX_SAFE_INTEGER } as const;

export const ATTENTION_KERNELS: readonly AttentionKernel[] = [
  // Written out in plain torch: memory grows with queries * keys.
  {
    name: 'reference',
    devices: ['cpu', 'cuda'],
    dtypes: MODEL_DTYPES,
    rectangle: true,
    window: true,
    softcap: true,
    headDims: ANY,
  },
  // aten::_scaled_dot_product_flash_attention_for_cpu masks from the top left.
  { name: 'cpu_flash', devices: ['cpu'], dtypes: MODEL_DTYPES, rectangle: false, window: false, softcap: false, headDims: ANY },
  // aten::_flash_attention_forward: FlashAttention-2, bottom right since its version 2.1, window_size_left.
  {
    name: 'flash2',
    devices: ['cuda'],
    dtypes: ['bfloat16', 'float16'],
    rectangle: true,
    window: true,
    softcap: false,
    headDims: { multipleOf: 8, atMost: 256 },
  },
];

const DEFAULTS: Readonly<Record<Device, string>> = { cpu: 'cpu_flash', cuda: 'flash2' };

/** What a device runs unless the user asks for another. */
export function defaultKernels(device: Device): Kernels {
  return { attn: DEFAULTS[device], attnBwd: DEFAULTS[device] };
}

/** Throws `unknown-kernel` with the nearest name. */
export function kernelNamed(name: string): AttentionKernel {
  const found = ATTENTION_KERNELS.find((kernel) => kernel.name === name);
  if (found !== undefined) return found;
  const names = ATTENTION_KERNELS.map((kernel) => kernel.name);
  const nearest = nearestKey(name, names);
  throw new FpdtError(`unknown attention kernel '${name}'`, {
    code: 'unknown-kernel',
    hint: `${nearest === undefined ? '' : `did you mean '${nearest}'? `}known: ${names.join(', ')}`,
  });
}

/** Whether a kernel has a mask; `square`: as many queries as keys, over the same tokens. */
export function can(kernel: AttentionKernel, mask: MaskShape, { square }: { readonly square: boolean }): boolean {
  if (mask.kind === 'full') return true;
  return mask.kind === 'window' ? kernel.window : square || kernel.rectangle;
}
