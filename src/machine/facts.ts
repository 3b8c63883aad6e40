/** What native/machine.cc says of a machine. Null: not known, and `unknown` says why by path, e.g. `gpus.0.isEccOn`. */

export interface MachineFacts {
  readonly kind: 'machineFacts';
  readonly driverVersion: string | null;
  /** The GPUs that answer; `unknown.gpus` says why there are none, or fewer than the driver counts. */
  readonly gpus: readonly GpuFacts[];
  readonly numaNodes: readonly NumaNodeFacts[];
  readonly memory: MemoryFacts;
  readonly cgroup: CgroupFacts;
  readonly cpus: CpuFacts;
  readonly memlock: MemlockFacts;
  readonly unknown: Readonly<Record<string, string>>;
}

/** A limit that may have been left open. */
export type Limit = number | 'unlimited';

export interface GpuFacts {
  /** NVML's number of it. */
  readonly index: number;
  readonly name: string | null;
  /** Counts what the driver keeps for itself. */
  readonly memoryTotalBytes: number | null;
  readonly memoryReservedBytes: number | null;
  readonly memoryFreeBytes: number | null;
  /** As sysfs names it: 0000:4e:00.0. */
  readonly busId: string | null;
  /** Now: an idle GPU lowers its generation. */
  readonly pcieGeneration: number | null;
  /** Of the GPU in its slot. */
  readonly pcieMaxGeneration: number | null;
  readonly pcieWidth: number | null;
  readonly pcieMaxWidth: number | null;
  /** The bridges between the root complex and the GPU, from the root: pci0000:4a, 0000:4a:02.0. */
  readonly pcieBridges: readonly string[] | null;
  readonly numaNode: number | null;
  /** That are up. */
  readonly numNvlinks: number | null;
  /** What is at their other ends, by bus id. */
  readonly nvlinkPeers: readonly NvlinkPeer[];
  readonly isMigOn: boolean | null;
  readonly isEccOn: boolean | null;
}

export interface NvlinkPeer {
  readonly busId: string;
  readonly kind: 'gpu' | 'switch' | 'other' | 'unknown';
  readonly numLinks: number;
}

export interface NumaNodeFacts {
  readonly node: number;
  /** As the kernel writes lists: 0-15,32-47. */
  readonly cpus: string | null;
  readonly memoryTotalBytes: number | null;
  readonly memoryFreeBytes: number | null;
}

export interface MemoryFacts {
  readonly totalBytes: number | null;
  /** Without swapping. */
  readonly availableBytes: number | null;
  /** Of one huge page. */
  readonly hugePageBytes: number | null;
  readonly numHugePages: number | null;
  readonly numFreeHugePages: number | null;
  /** always, madvise or never. */
  readonly transparentHugePages: string | null;
}

/** The lowest limits of this process's control group and those above it. */
export interface CgroupFacts {
  readonly memoryLimitBytes: Limit | null;
  /** In CPUs' worth of time. */
  readonly cpuLimit: Limit | null;
}

/** Lists as the kernel writes them. */
export interface CpuFacts {
  readonly online: string | null;
  /** Those that this process may run on. */
  readonly allowed: string | null;
}

/** Memory that this process may lock. */
export interface MemlockFacts {
  readonly softBytes: Limit | null;
  readonly hardBytes: Limit | null;
}
