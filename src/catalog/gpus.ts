/**
 * Devices by name: achieved rates, memory and fixed overheads of one rank, each with its source. A GPU is one row; what a chip does on
 * every card that has it is said once. What is said to be assumed has no published measurement.
 */
import type { Provenance } from '../spec/types.js';
import { attentionRates } from './attentionRates.js';
import { type DeviceRates, rates, TERA } from './gpuRates.js';

export interface DeviceEntry {
  readonly name: string;
  readonly device: 'cpu' | 'cuda';
  /** See ClusterSpec. */
  readonly architecture?: string;
  /** What NVML calls the boards whose rates these are: boards of the same chip on PCIe alone have others. */
  readonly nvmlNames: readonly string[];
  readonly hbmBytes: number;
  /** Host memory of a rank: an assumption about the node, to be overridden. */
  readonly hostBytes: number;
  readonly ranksPerNode: number;
  readonly peakFlops: number;
  readonly rates: DeviceRates;
  /** Of all CPUs of a node together, shared by its ranks. */
  readonly nodeOptimizerSecondsPerParameter: number;
  readonly ratesProvenance: Provenance;
  readonly ratesSource: string;
  /** One cuBLAS workspace per handle and stream, by compute capability. */
  readonly cublasWorkspaceBytes: number;
}

export const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

/** NVLink: 396 of 450 GB/s seen on H200 (nvbandwidth). */
const NVLINK_EFFICIENCY = 0.88;
/** Where no achieved rate is published: the share of the peak that an H100's products reach (stas00/ml-engineering). */
const MATMUL_EFFICIENCY = 0.8;
/** DeepSpeed's CPU Adam: 0.22 s for 1, 2.57 s for 10 billion parameters on both sockets of a DGX-2 (ZeRO-Offload, arXiv 2101.06840, table of latencies). */
const CPU_ADAM_SECONDS = 0.25e-9;

const SOURCE =
  'matmul: MAMF of stas00/ml-engineering, else 80% of the peak; attention: FlashAttention papers; link: pinned copies on nvbandwidth; ' +
  'NVLink: specification * 0.88; network: adapters * 0.9; memory: specification * 0.8; disk: half a PM1733; latencies, host and step overhead assumed';

/** Of every GPU. */
const COMMON = {
  device: 'cuda',
  ranksPerNode: 8,
  // Of a node with 2 TB for 8.
  hostBytes: 240 * GIB,
  nodeOptimizerSecondsPerParameter: CPU_ADAM_SECONDS,
  ratesProvenance: 'assumed',
  ratesSource: SOURCE,
} as const;

/** PCIe 4 and 5 with 16 lanes, pinned (nvbandwidth; eight H200 for the latter). */
const PCIE4 = 24.8;
const PCIE5 = 55;
/** Cards without a link of their own reach each other over PCIe, some through the host's memory: two thirds of it; assumed. */
const PEER_SHARE = 2 / 3;

/** 312 TFLOP/s; NVLink 3 with 300 GB/s a direction (data sheet); a 200 Gb/s adapter for each GPU (DGX A100). */
const A100 = {
  matmul: 271,
  attention: attentionRates('a100'),
  link: PCIE4,
  // Both directions at once: D2H keeps 24 GB/s while H2D falls to about 11 (one dual-socket machine, NVIDIA forum 352186).
  duplex: 35,
  node: 300 * NVLINK_EFFICIENCY,
  network: 25,
} as const;

/** 989 TFLOP/s; NVLink 4 with 450 GB/s a direction (data sheet); a 400 Gb/s adapter for each GPU (DGX H100). */
const H100 = {
  matmul: 795,
  attention: attentionRates('h100'),
  link: PCIE5,
  duplex: 0,
  node: 450 * NVLINK_EFFICIENCY,
  network: 50,
} as const;

/** H100 NVL: 835 of 989 TFLOP/s within 400 W (data sheet). */
const NVL_SHARE = 835 / 989;

const SMALL_WORKSPACE = 8.1 * MIB;
const LARGE_WORKSPACE = 32 * MIB;

export const DEVICES: readonly DeviceEntry[] = [
  {
    ...COMMON,
    name: 'a100-40gb',
    architecture: 'sm80',
    nvmlNames: ['NVIDIA A100-SXM4-40GB'],
    // 42405855232 bytes (deviceQuery on the SXM4 module, Paderborn Center for Parallel Computing).
    hbmBytes: 39.49 * GIB,
    // Of a node with 1 TB for 8 (DGX A100 320GB).
    hostBytes: 120 * GIB,
    peakFlops: 312 * TERA,
    // HBM2 of 1555 GB/s (data sheet).
    rates: rates({ ...A100, hbmBandwidth: 1555 }),
    cublasWorkspaceBytes: SMALL_WORKSPACE,
  },
  {
    ...COMMON,
    name: 'a100-80gb',
    architecture: 'sm80',
    nvmlNames: ['NVIDIA A100-SXM4-80GB'],
    // torch reports 79.15 to 79.21 GiB in total.
    hbmBytes: 79.15 * GIB,
    peakFlops: 312 * TERA,
    rates: rates({ ...A100, hbmBandwidth: 2000 }),
    cublasWorkspaceBytes: SMALL_WORKSPACE,
  },
  {
    ...COMMON,
    name: 'h100-80gb',
    architecture: 'sm90',
    nvmlNames: ['NVIDIA H100 80GB HBM3'],
    hbmBytes: 79.1 * GIB,
    peakFlops: 989 * TERA,
    rates: rates({ ...H100, hbmBandwidth: 3350 }),
    cublasWorkspaceBytes: LARGE_WORKSPACE,
  },
  {
    ...COMMON,
    name: 'h100-nvl-94gb',
    architecture: 'sm90',
    nvmlNames: ['NVIDIA H100 NVL'],
    // torch reports 93.1 GiB in total.
    hbmBytes: 93.1 * GIB,
    peakFlops: 835 * TERA,
    // HBM3 of 3938 GB/s (data sheet); NVLink joins pairs, more of them meet over PCIe; a 400 Gb/s adapter for two; assumed.
    rates: rates({
      ...H100,
      matmul: 835 * MATMUL_EFFICIENCY,
      attention: attentionRates('h100', NVL_SHARE),
      hbmBandwidth: 3938,
      node: PCIE5 * PEER_SHARE,
      network: 25,
    }),
    cublasWorkspaceBytes: LARGE_WORKSPACE,
  },
  {
    ...COMMON,
    name: 'h200-141gb',
    architecture: 'sm90',
    nvmlNames: ['NVIDIA H200'],
    hbmBytes: 139.8 * GIB,
    peakFlops: 989 * TERA,
    rates: rates({ ...H100, hbmBandwidth: 4800 }),
    cublasWorkspaceBytes: LARGE_WORKSPACE,
  },
  {
    ...COMMON,
    name: 'b200',
    architecture: 'sm100',
    nvmlNames: ['NVIDIA B200'],
    // torch reports 178.4 GiB in total, of 180 GB.
    hbmBytes: 178.3 * GIB,
    peakFlops: 2250 * TERA,
    // HBM3e of 8 TB/s, NVLink 5 with 900 GB/s a direction, PCIe 5 and 400 Gb/s a GPU in a DGX B200 (data sheet).
    rates: rates({
      ...H100,
      matmul: 1745,
      attention: attentionRates('b200'),
      hbmBandwidth: 8000,
      node: 900 * NVLINK_EFFICIENCY,
    }),
    cublasWorkspaceBytes: LARGE_WORKSPACE,
  },
  {
    ...COMMON,
    name: 'gh200',
    architecture: 'sm90',
    nvmlNames: ['NVIDIA GH200 480GB'],
    // 96 GB of HBM3, of which about 94.5 GiB are there to use; assumed.
    hbmBytes: 94.5 * GIB,
    // 480 GB of LPDDR5X on the module (data sheet).
    hostBytes: 420 * GIB,
    ranksPerNode: 1,
    peakFlops: 989 * TERA,
    // HBM3 of 4 TB/s (data sheet). NVLink-C2C: 359 GB/s to the device, 175 + 172 both ways at once (a GB300 of the same link, nvbandwidth).
    rates: rates({ ...H100, matmul: 828.6, hbmBandwidth: 4000, link: 359, duplex: 347 }),
    cublasWorkspaceBytes: LARGE_WORKSPACE,
  },
  {
    ...COMMON,
    name: 'l40s',
    architecture: 'sm89',
    nvmlNames: ['NVIDIA L40S'],
    // torch reports 44.4 GiB in total, with ECC.
    hbmBytes: 44.4 * GIB,
    hostBytes: 120 * GIB,
    peakFlops: 362 * TERA,
    // GDDR6 of 864 GB/s, PCIe 4, no NVLink (data sheet); kernels of an A100 at the same share of the peak; 100 Gb/s a GPU; assumed.
    rates: rates({
      matmul: 362 * MATMUL_EFFICIENCY,
      attention: attentionRates('a100', 362 / 312),
      hbmBandwidth: 864,
      link: PCIE4,
      duplex: 0,
      node: PCIE4 * PEER_SHARE,
      network: 12.5,
    }),
    cublasWorkspaceBytes: SMALL_WORKSPACE,
  },
  {
    ...COMMON,
    name: 'rtx-4090',
    architecture: 'sm89',
    nvmlNames: ['NVIDIA GeForce RTX 4090'],
    // torch reports 23.64 GiB in total.
    hbmBytes: 23.64 * GIB,
    hostBytes: 56 * GIB,
    peakFlops: 165.2 * TERA,
    // 165.2 TFLOP/s with fp32 sums, GDDR6X of 1008 GB/s (Ada white paper); no NVLink and no peer copies; 100 Gb/s for a node; assumed.
    rates: rates({
      matmul: 165.2 * MATMUL_EFFICIENCY,
      attention: attentionRates('a100', 165.2 / 312),
      hbmBandwidth: 1008,
      link: PCIE4,
      duplex: 0,
      node: (PCIE4 * PEER_SHARE) / 2,
      network: 12.5 / 8,
    }),
    cublasWorkspaceBytes: SMALL_WORKSPACE,
  },
  {
    ...COMMON,
    name: 'mi300x',
    architecture: 'gfx942',
    nvmlNames: [],
    // torch reports 191.98 GiB in total.
    hbmBytes: 191.9 * GIB,
    peakFlops: 1307 * TERA,
    // HBM3 of 5.3 TB/s, seven Infinity Fabric links of 64 GB/s a direction (data sheet), of which as much as of NVLink; assumed.
    rates: rates({
      matmul: 668,
      attention: attentionRates('mi300x'),
      hbmBandwidth: 5300,
      link: PCIE5,
      duplex: 0,
      node: 7 * 64 * NVLINK_EFFICIENCY,
      network: 50,
    }),
    // hipBLASLt's on gfx94, as torch asks for it.
    cublasWorkspaceBytes: 76 * MIB,
  },
];
