/** Rates of a GPU from the figures of its data sheet and of measurements, which gpus.ts has; what is alike on all of them is here. */
import type { Rates } from '../spec/types.js';
import { ATTENTION_HALF_KEYS } from './attentionRates.js';
import { UNMEASURED } from './unmeasured.js';

/** Rates of one rank. What the ranks of a node share is a cluster's, which knows how many there are. */
export type DeviceRates = Omit<Rates, 'offloadedOptimizerSecondsPerParameter'>;

export const TERA = 1e12;
const GIGA = 1e9;

/** Element-wise kernels reach about 80% of the memory bandwidth; assumed. */
const MEMORY_EFFICIENCY = 0.8;
/** Of a network adapter's line rate; assumed. */
const NETWORK_EFFICIENCY = 0.9;
/** The worker's part of an op of a linked section, with its waits and events; and PyTorch's of one kernel, 4 to 5 us. Assumed until calibrated. */
const HOST_SECONDS_PER_OP = 8e-6;
const HOST_SECONDS_PER_KERNEL = 4.5e-6;
/** Kernels one after the other: 0.9 us between them (NVIDIA, Getting Started with CUDA Graphs), and as much to fill the chip and drain it; assumed. */
const LAUNCH_SECONDS = 2e-6;
/** One PCIe 4 drive for two ranks: 7.0 GB/s read, 3.8 GB/s written in sequence (Samsung PM1733, data sheet). */
const DISK_READ = 3.5;
const DISK_WRITE = 1.9;
/** Fused Adam reads master, two moments and gradient and writes master, two moments and the weight: 16 + 14 bytes. */
const ADAM_BYTES_PER_PARAMETER = 30;

export interface Figures {
  readonly matmul: number;
  readonly attention: DeviceRates['attentionKernels'];
  readonly hbmBandwidth: number;
  /** Pinned copies in one direction; of both together where they share a link. */
  readonly link: number;
  readonly duplex: number;
  /** What a rank sends to others of its node, and of other nodes. */
  readonly node: number;
  readonly network: number;
}

/** Tera-FLOP/s and giga-bytes/s to rates. */
export function rates(figures: Figures): DeviceRates {
  const memoryBytes = figures.hbmBandwidth * GIGA * MEMORY_EFFICIENCY;
  const [attention] = figures.attention.filter(({ kernel, headDim }) => kernel === 'flash2' && headDim === 128);
  if (attention === undefined) throw new RangeError('a GPU has no rate of flash2 with a head dim of 128');
  return {
    matmulFlops: figures.matmul * TERA,
    attentionForwardFlops: attention.forwardFlops,
    attentionBackwardFlops: attention.backwardFlops,
    attentionKernels: figures.attention,
    attentionHalfKeys: ATTENTION_HALF_KEYS,
    memoryBytes,
    h2dBytes: figures.link * GIGA,
    d2hBytes: figures.link * GIGA,
    duplexBytes: figures.duplex * GIGA,
    commBytes: figures.node * GIGA,
    gatherBytes: figures.node * GIGA,
    reduceBytes: figures.node * GIGA,
    commLatencySeconds: 20e-6,
    interNodeBytes: figures.network * GIGA * NETWORK_EFFICIENCY,
    interNodeLatencySeconds: 40e-6,
    launchSeconds: LAUNCH_SECONDS,
    optimizerSecondsPerParameter: ADAM_BYTES_PER_PARAMETER / memoryBytes,
    stepOverheadSeconds: 0.02,
    ...UNMEASURED,
    hostSecondsPerOp: HOST_SECONDS_PER_OP,
    hostSecondsPerKernel: HOST_SECONDS_PER_KERNEL,
    diskReadBytes: DISK_READ * GIGA,
    diskWriteBytes: DISK_WRITE * GIGA,
  };
}
