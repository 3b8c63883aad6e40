/** A machine in good order: eight A100s of four on each of two nodes. */
import type { GpuFacts, MachineFacts } from '../../src/machine/facts.js';

const GIB = 1024 ** 3;

export function gpu(index: number): GpuFacts {
  return {
    index,
    name: 'NVIDIA A100-SXM4-80GB',
    memoryTotalBytes: 80 * GIB,
    memoryReservedBytes: GIB,
    memoryFreeBytes: 78.5 * GIB,
    busId: `0000:${index}0:00.0`,
    pcieGeneration: 4,
    pcieMaxGeneration: 4,
    pcieWidth: 16,
    pcieMaxWidth: 16,
    pcieBridges: [`pci0000:${index}a`, `0000:${index}a:02.0`],
    numaNode: index < 4 ? 0 : 1,
    numNvlinks: 12,
    nvlinkPeers: [{ busId: '0000:c4:00.0', kind: 'switch', numLinks: 12 }],
    isMigOn: false,
    isEccOn: true,
  };
}

export const MACHINE: MachineFacts = {
  kind: 'machineFacts',
  driverVersion: '550.54.15',
  gpus: Array.from({ length: 8 }, (_, index) => gpu(index)),
  numaNodes: [
    { node: 0, cpus: '0-15', memoryTotalBytes: 512 * GIB, memoryFreeBytes: 500 * GIB },
    { node: 1, cpus: '16-31', memoryTotalBytes: 512 * GIB, memoryFreeBytes: 500 * GIB },
  ],
  memory: {
    totalBytes: 1024 * GIB,
    availableBytes: 1000 * GIB,
    hugePageBytes: 2 * 1024 ** 2,
    numHugePages: 0,
    numFreeHugePages: 0,
    transparentHugePages: 'madvise',
  },
  cgroup: { memoryLimitBytes: 'unlimited', cpuLimit: 'unlimited' },
  cpus: { online: '0-31', allowed: '0-31' },
  memlock: { softBytes: 'unlimited', hardBytes: 'unlimited' },
  unknown: {},
};

/** The machine with other facts of its first GPU. */
export function withGpu(change: Partial<GpuFacts>, unknown: MachineFacts['unknown'] = {}): MachineFacts {
  return { ...MACHINE, gpus: MACHINE.gpus.map((one) => (one.index === 0 ? { ...one, ...change } : one)), unknown };
}
