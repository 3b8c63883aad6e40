/** What follows from facts of a machine. */
import type { GpuFacts, MachineFacts } from './facts.js';

/** Memory that processes of this control group can use: the machine's, or the group's limit where it is lower. */
export function usableMemoryBytes({ memory, cgroup }: MachineFacts): number | null {
  const limit = cgroup.memoryLimitBytes;
  if (typeof limit !== 'number') return memory.totalBytes;
  return memory.totalBytes === null ? limit : Math.min(limit, memory.totalBytes);
}

/** CPUs that this process may use at a time: as many as its affinity has, fewer where its control group gets less time. */
export function numUsableCpus({ cpus, cgroup }: MachineFacts): number | null {
  const allowed = cpus.allowed === null ? null : parseList(cpus.allowed).length;
  if (typeof cgroup.cpuLimit !== 'number') return allowed;
  return allowed === null ? cgroup.cpuLimit : Math.min(allowed, cgroup.cpuLimit);
}

/** What an application can have of a GPU's memory; CUDA's total, which leaves out what the driver keeps. */
export function usableGpuBytes({ memoryTotalBytes, memoryReservedBytes }: GpuFacts): number | null {
  return memoryTotalBytes === null ? null : memoryTotalBytes - (memoryReservedBytes ?? 0);
}

/** Numbers of a list as the kernel writes them: 0-3,8. */
export function parseList(list: string): readonly number[] {
  return list.split(',').flatMap((range) => {
    const [first = Number.NaN, last = first] = range.split('-').map((number) => (number.trim() === '' ? Number.NaN : Number(number)));
    return Number.isNaN(first) ? [] : Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}
