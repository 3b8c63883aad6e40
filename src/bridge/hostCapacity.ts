/** How many ranks a host takes: one a GPU, or so many a processor. */

import { readdirSync } from 'node:fs';
import { availableParallelism, hostname } from 'node:os';
import type { ClusterSpec } from '../spec/types.js';
import { FpdtError } from '../spec/errors.js';
import type { Environment } from './rankEnvironment.js';

export interface HostCapacity {
  readonly name: string;
  readonly numProcessors: number;
  /** Null where this cannot be told without asking the driver; a rank will. */
  readonly numGpus: number | null;
}

/** Ranks of a CPU compute one after the other where they share a processor: more of them test nothing and train nothing. */
export const CPU_RANKS_PER_PROCESSOR = 8;
/** Where the GPUs of a host cannot be counted: no host has more. */
export const MAX_GPUS = 16;

export function hostCapacity(environment: Environment = process.env): HostCapacity {
  return { name: hostname(), numProcessors: availableParallelism(), numGpus: visibleGpus(environment) ?? gpuFiles() };
}

export function maxRanks(device: ClusterSpec['device'], { numProcessors, numGpus }: Omit<HostCapacity, 'name'>): number {
  return device === 'cpu' ? CPU_RANKS_PER_PROCESSOR * numProcessors : (numGpus ?? MAX_GPUS);
}

/** Throws FpdtError `too-many-ranks` before anything is started. */
export function checkRanksFit({ numRanks, device }: Pick<ClusterSpec, 'numRanks' | 'device'>, capacity: HostCapacity): void {
  const most = maxRanks(device, capacity);
  if (numRanks <= most) return;
  throw new FpdtError(`${numRanks} ranks are more than ${capacity.name} takes: ${most}, ${reason(device, capacity)}`, {
    code: 'too-many-ranks',
    hint: `put them on several hosts with --hostfile or --slurm, or plan for ${most === 0 ? 'the device cpu' : `${most} or fewer`}`,
    details: { numRanks, most, ...capacity },
  });
}

function reason(device: ClusterSpec['device'], { numProcessors, numGpus }: HostCapacity): string {
  if (device === 'cpu') return `${CPU_RANKS_PER_PROCESSOR} for each of its ${numProcessors} processors`;
  return numGpus === null ? 'as its GPUs cannot be counted' : `its GPUs`;
}

function visibleGpus({ CUDA_VISIBLE_DEVICES: visible }: Environment): number | null {
  if (visible === undefined) return null;
  const names = visible.split(',').map((name) => name.trim());
  // CUDA reads the list up to the first that is no device.
  const end = names.findIndex((name) => name === '' || name === '-1');
  return end < 0 ? names.length : end;
}

/** Device files that the driver makes, one a GPU. Where there are none, as under WSL, it may be there all the same. */
function gpuFiles(): number | null {
  try {
    return readdirSync('/dev').filter((name) => /^nvidia\d+$/.test(name)).length || null;
  } catch {
    return null; // Another system than Linux may have no /dev.
  }
}
