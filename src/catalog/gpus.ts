/** Devices by name: achieved rates, memory and fixed overheads of one rank, each with its source. A GPU is one row. */
import type { Provenance, Rates } from '../spec/types.js';

export interface DeviceEntry {
  readonly name: string;
  readonly device: 'cpu' | 'cuda';
  /** What NVML calls the boards whose rates these are: boards of the same chip on PCIe alone have others. */
  readonly nvmlNames: readonly string[];
  readonly hbmBytes: number;
  /** Host memory of a rank: an assumption about the node, to be overridden. */
  readonly hostBytes: number;
  readonly ranksPerNode: number;
  readonly peakFlops: number;
  readonly rates: Rates;
  readonly ratesProvenance: Provenance;
  readonly ratesSource: string;
  /** One cuBLAS workspace per handle and stream, by compute capability. */
  readonly cublasWorkspaceBytes: number;
}

export const GIB = 1024 ** 3;
const TERA = 1e12;
const GIGA = 1e9;

/** Element-wise kernels reach about 80% of the memory bandwidth; assumed. */
const MEMORY_EFFICIENCY = 0.8;
/** NVLink: 396 of 450 GB/s seen on H200 (nvbandwidth). */
const NVLINK_EFFICIENCY = 0.88;
/**
 * The worker's part of an op of a linked section, with its waits and events; and PyTorch's of one kernel, 4 to 5 us. Assumed until
 * calibrated.
 */
const HOST_SECONDS_PER_OP = 8e-6;
const HOST_SECONDS_PER_KERNEL = 4.5e-6;
/** One PCIe 4 drive for two ranks: 7.0 GB/s read, 3.8 GB/s written in sequence (Samsung PM1733, data sheet). */
const DISK_READ = 3.5;
const DISK_WRITE = 1.9;
/** Fused Adam reads master, two moments and gradient and writes master, two moments and the weight: 16 + 14 bytes. */
const ADAM_BYTES_PER_PARAMETER = 30;

/** What modules with one chip share; their memory is their own. Tera-FLOP/s and giga-bytes/s. */
interface Chip {
  readonly peak: number;
  readonly matmul: number;
  readonly attentionForward: number;
  readonly attentionBackward: number;
  readonly link: number;
  readonly duplex: number;
  readonly nvlink: number;
  readonly cublasWorkspaceBytes: number;
}

const A100: Chip = {
  peak: 312,
  matmul: 271,
  attentionForward: 189,
  attentionBackward: 189,
  link: 24.8,
  // Both directions at once: D2H keeps 24 GB/s while H2D falls to about 11 (one dual-socket machine, NVIDIA forum 352186).
  duplex: 35,
  nvlink: 300,
  cublasWorkspaceBytes: 8.1 * 1024 ** 2,
};

const HOPPER: Chip = {
  peak: 989,
  matmul: 795,
  attentionForward: 365,
  attentionBackward: 330,
  link: 55,
  duplex: 0,
  nvlink: 450,
  cublasWorkspaceBytes: 32 * 1024 ** 2,
};

/** `hbmBandwidth` in giga-bytes/s, as specified. */
function rates(chip: Chip, hbmBandwidth: number): Rates {
  const memoryBytes = hbmBandwidth * GIGA * MEMORY_EFFICIENCY;
  return {
    matmulFlops: chip.matmul * TERA,
    attentionForwardFlops: chip.attentionForward * TERA,
    attentionBackwardFlops: chip.attentionBackward * TERA,
    memoryBytes,
    h2dBytes: chip.link * GIGA,
    d2hBytes: chip.link * GIGA,
    duplexBytes: chip.duplex * GIGA,
    commBytes: chip.nvlink * GIGA * NVLINK_EFFICIENCY,
    commLatencySeconds: 20e-6,
    launchSeconds: 5e-6,
    optimizerSecondsPerParameter: ADAM_BYTES_PER_PARAMETER / memoryBytes,
    stepOverheadSeconds: 0.02,
    hostSecondsPerOp: HOST_SECONDS_PER_OP,
    hostSecondsPerKernel: HOST_SECONDS_PER_KERNEL,
    diskReadBytes: DISK_READ * GIGA,
    diskWriteBytes: DISK_WRITE * GIGA,
  };
}

const SOURCE =
  'matmul: MAMF of stas00/ml-engineering; attention: FlashAttention-2 at d=128, bf16, causal; link: pinned copies on nvbandwidth; ' +
  'NVLink: specification * 0.88; memory: specification * 0.8; disk: half a PM1733; latencies, host and step overhead assumed';

function ofChip(chip: Chip, hbmBandwidth: number): Omit<DeviceEntry, 'name' | 'nvmlNames' | 'hbmBytes' | 'hostBytes' | 'ranksPerNode'> {
  return {
    device: 'cuda',
    peakFlops: chip.peak * TERA,
    rates: rates(chip, hbmBandwidth),
    ratesProvenance: 'assumed',
    ratesSource: SOURCE,
    cublasWorkspaceBytes: chip.cublasWorkspaceBytes,
  };
}

export const DEVICES: readonly DeviceEntry[] = [
  {
    name: 'a100-40gb',
    nvmlNames: ['NVIDIA A100-SXM4-40GB'],
    // 42405855232 bytes (deviceQuery on the SXM4 module, Paderborn Center for Parallel Computing).
    hbmBytes: 39.49 * GIB,
    // Of a node with 1 TB for 8 (DGX A100 320GB).
    hostBytes: 120 * GIB,
    ranksPerNode: 8,
    // Memory of 1555 GB/s (data sheet).
    ...ofChip(A100, 1555),
  },
  {
    name: 'a100-80gb',
    nvmlNames: ['NVIDIA A100-SXM4-80GB'],
    // torch reports 79.15 to 79.21 GiB in total.
    hbmBytes: 79.15 * GIB,
    hostBytes: 240 * GIB,
    ranksPerNode: 8,
    ...ofChip(A100, 2000),
  },
  {
    name: 'h100-80gb',
    nvmlNames: ['NVIDIA H100 80GB HBM3'],
    hbmBytes: 79.1 * GIB,
    hostBytes: 240 * GIB,
    ranksPerNode: 8,
    ...ofChip(HOPPER, 3350),
  },
  {
    name: 'h200-141gb',
    nvmlNames: ['NVIDIA H200'],
    hbmBytes: 139.8 * GIB,
    hostBytes: 240 * GIB,
    ranksPerNode: 8,
    ...ofChip(HOPPER, 4800),
  },
];
