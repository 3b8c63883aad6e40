/** Attention kernels by name: what each can do and which chips run it. The plan splits and merges only what its kernel cannot. */
import { MODEL_DTYPES } from '../spec/dtype.js';
import { FpdtError } from '../spec/errors.js';
import { nearestKey } from '../spec/nearestKey.js';
import type { ClusterSpec, RunSpec } from '../spec/types.js';
import type { FusedKernels } from './fusedKernels.js';
import type { MaskShape } from './ops/views.js';

type Device = ClusterSpec['device'];

/** Multiples of a number up to another. */
interface HeadDims {
  readonly multipleOf: number;
  readonly atMost: number;
  /** Other limits of some GPUs. */
  readonly on?: Readonly<Record<string, number>>;
  /** Those that some GPUs do not have. */
  readonly but?: { readonly above: number; readonly to: number; readonly on: readonly string[] };
}

export interface AttentionKernel {
  readonly name: string;
  readonly devices: readonly Device[];
  /** GPUs that run it; absent: all of its devices. */
  readonly architectures?: readonly string[];
  readonly dtypes: readonly RunSpec['dtype'][];
  readonly headDims: HeadDims;
  /** Fewer key/value heads than query heads, without copies of them. */
  readonly groupedHeads: boolean;
  /** Causal masks with fewer queries than keys, aligned at the bottom right. Square ones every kernel has. */
  readonly rectangle: boolean;
  readonly window: boolean;
  /** Numbers of keys it is right for: multiples of this. Left out: any. */
  readonly keysMultipleOf?: number;
  /** Scores bounded by a tanh. */
  readonly softcap: boolean;
  /** Sequences of several lengths in one call. No mask of a plan asks for them. */
  readonly varlen: boolean;
  /** Puts its output where it is told; the others make one, which is copied. */
  readonly writesOutput: boolean;
  /** Forms all scores in memory: for where no other kernel will do. */
  readonly writesScores: boolean;
  /** What has to be installed beside PyTorch. */
  readonly package?: string;
}

/** Implementations that the plan's masks, rates and temporaries assume; the worker obeys or refuses. */
export interface Kernels {
  readonly attn: string;
  readonly attnBwd: string;
  /** Of what stands beside attention; what is left out is plain. */
  readonly fused?: FusedKernels;
}

/** FlashAttention's ops in aten; torch 2.13 writes into a given output. */
const FLASH = {
  devices: ['cuda'],
  dtypes: ['bfloat16', 'float16'],
  groupedHeads: true,
  rectangle: true,
  softcap: false,
  varlen: true,
  writesOutput: true,
  writesScores: false,
} as const;

export const ATTENTION_KERNELS: readonly AttentionKernel[] = [
  // Written out in plain torch: memory grows with queries * keys.
  {
    name: 'reference',
    devices: ['cpu', 'cuda'],
    dtypes: MODEL_DTYPES,
    headDims: { multipleOf: 1, atMost: Number.MAX_SAFE_INTEGER },
    groupedHeads: true,
    rectangle: true,
    window: true,
    softcap: true,
    varlen: false,
    writesOutput: false,
    writesScores: true,
  },
  // aten::_scaled_dot_product_flash_attention_for_cpu masks from the top left.
  {
    name: 'cpu_flash',
    devices: ['cpu'],
    dtypes: MODEL_DTYPES,
    headDims: { multipleOf: 1, atMost: Number.MAX_SAFE_INTEGER },
    groupedHeads: true,
    rectangle: false,
    window: false,
    softcap: false,
    varlen: false,
    writesOutput: false,
    writesScores: false,
  },
  // aten::_flash_attention_forward: FlashAttention-2, bottom right since its version 2.1, window_size_left. Its backward of
  // 224 wants more shared memory than small chips have (torch's sdp_utils.cpp, ..._head_dim_gt192_constraints_on_sm86_89_or_120).
  {
    ...FLASH,
    name: 'flash2',
    headDims: { multipleOf: 8, atMost: 256, but: { above: 192, to: 224, on: ['sm86', 'sm89', 'sm120', 'sm121'] } },
    window: true,
  },
  // aten::_scaled_dot_product_cudnn_attention: masks from the top left; limits of torch's sdp_utils.cpp (can_use_cudnn_attention).
  {
    name: 'cudnn',
    devices: ['cuda'],
    architectures: ['sm80', 'sm89', 'sm90', 'sm100'],
    dtypes: ['bfloat16', 'float16'],
    headDims: { multipleOf: 8, atMost: 128, on: { sm90: 256 } },
    // Backward may be NaN where 64 keys are over (pytorch issue 196678).
    keysMultipleOf: 128,
    groupedHeads: true,
    rectangle: false,
    window: false,
    softcap: false,
    varlen: false,
    writesOutput: false,
    writesScores: false,
  },
  // What torch.nn.attention activates behind the ops of FlashAttention-2; they hand on no softcap.
  {
    ...FLASH,
    name: 'flash3',
    architectures: ['sm90'],
    headDims: { multipleOf: 8, atMost: 256 },
    window: true,
    package: 'flash_attn_interface, of the folder hopper of github.com/Dao-AILab/flash-attention',
  },
  // Head dims of flash_attn/cute/interface.py; windows of its backward differ by version and chip.
  {
    ...FLASH,
    name: 'flash4',
    architectures: ['sm90', 'sm100'],
    headDims: { multipleOf: 32, atMost: 128 },
    window: false,
    package: 'flash-attn-4',
  },
];

const DEFAULTS: Readonly<Record<Device, string>> = { cpu: 'cpu_flash', cuda: 'flash2' };

/** What every device of a kind has, whatever its rates say of others. */
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
