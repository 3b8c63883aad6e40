/** Devices by name: achieved rates, memory and fixed overheads of one rank, each with its source. A GPU is one row. */
import type { Provenance, Rates } from '../spec/types.js';

export interface DeviceEntry {
  readonly name: string;
  readonly device: 'cpu' | 'cuda';
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
/** The worker's part of an op of a linked section, with its waits and events; and PyTorch's of one kernel, 4 to 5 us. Assumed until calibrated. */
const HOST_SECONDS_PER_OP = 8e-6;
const HOST_SECONDS_PER_KERNEL = 4.5e-6;
/** One PCIe 4 drive for two ranks: 7.0 GB/s read, 3.8 GB/s written in sequence (Samsung PM1733, data sheet). */
const DISK_READ = 3.5;
const DISK_WRITE = 1.9;
/** Fused Adam reads master, two moments and gradient and writes master, two moments and the weight: 16 + 14 bytes. */
const ADAM_BYTES_PER_PARAMETER = 30;

interface Figures {
  readonly matmul: number;
  readonly attentionForward: number;
  readonly attentionBackward: number;
  readonly hbmBandwidth: number;
  readonly link: number;
  readonly duplex: number;
  readonly nvlink: number;
}

/** Tera-FLOP/s and giga-bytes/s to Rates. */
function rates(figures: Figures): Rates {
  const memoryBytes = figures.hbmBandwidth * GIGA * MEMORY_EFFICIENCY;
  return {
    matmulFlops: figures.matmul * TERA,
    attentionForwardFlops: figures.attentionForward * TERA,
    attentionBackwardFlops: figures.attentionBackward * TERA,
    memoryBytes,
    h2dBytes: figures.link * GIGA,
    d2hBytes: figures.link * GIGA,
    duplexBytes: figures.duplex * GIGA,
    commBytes: figures.nvlink * GIGA * NVLINK_EFFICIENCY,
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

export const DEVICES: readonly DeviceEntry[] = [
  {
    name: 'a100-40gb',
    device: 'cuda',
    // 42405855232 bytes (deviceQuery on the SXM4 module, Paderborn Center for Parallel Computing).
    hbmBytes: 39.49 * GIB,
    // Of a node with 1 TB for 8 (DGX A100 320GB).
    hostBytes: 120 * GIB,
    ranksPerNode: 8,
    peakFlops: 312 * TERA,
    // The chip, NVLink and PCIe of the 80 GB module, whose rates these are; the memory of 1555 GB/s alone is another (data sheet).
    rates: rates({ matmul: 271, attentionForward: 189, attentionBackward: 189, hbmBandwidth: 1555, link: 24.8, duplex: 35, nvlink: 300 }),
    ratesProvenance: 'assumed',
    ratesSource: SOURCE,
    cublasWorkspaceBytes: 8.1 * 1024 ** 2,
  },
  {
    name: 'a100-80gb',
    device: 'cuda',
    // torch reports 79.15 to 79.21 GiB in total.
    hbmBytes: 79.15 * GIB,
    hostBytes: 240 * GIB,
    ranksPerNode: 8,
    peakFlops: 312 * TERA,
    // Both directions at once: D2H keeps 24 GB/s while H2D falls to about 11 (one dual-socket machine, NVIDIA forum 352186).
    rates: rates({ matmul: 271, attentionForward: 189, attentionBackward: 189, hbmBandwidth: 2000, link: 24.8, duplex: 35, nvlink: 300 }),
    ratesProvenance: 'assumed',
    ratesSource: SOURCE,
    cublasWorkspaceBytes: 8.1 * 1024 ** 2,
  },
  {
    name: 'h100-80gb',
    device: 'cuda',
    hbmBytes: 79.1 * GIB,
    hostBytes: 240 * GIB,
    ranksPerNode: 8,
    peakFlops: 989 * TERA,
    rates: rates({ matmul: 795, attentionForward: 365, attentionBackward: 330, hbmBandwidth: 3350, link: 55, duplex: 0, nvlink: 450 }),
    ratesProvenance: 'assumed',
    ratesSource: SOURCE,
    cublasWorkspaceBytes: 32 * 1024 ** 2,
  },
  {
    name: 'h200-141gb',
    device: 'cuda',
    hbmBytes: 139.8 * GIB,
    hostBytes: 240 * GIB,
    ranksPerNode: 8,
    peakFlops: 989 * TERA,
    rates: rates({ matmul: 795, attentionForward: 365, attentionBackward: 330, hbmBandwidth: 4800, link: 55, duplex: 0, nvlink: 450 }),
    ratesProvenance: 'assumed',
    ratesSource: SOURCE,
    cublasWorkspaceBytes: 32 * 1024 ** 2,
  },
];
