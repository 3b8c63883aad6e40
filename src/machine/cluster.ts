/** A cluster file of this machine from its facts alone: counts and sizes are the machine's, rates those of the catalog. */
import { entryNamed } from '../catalog/clusters.js';
import { entryOfBoard } from '../catalog/boards.js';
import type { ShortClusterInput } from '../spec/clusterSpec.js';
import { FpdtError } from '../spec/errors.js';
import { formatBytes } from '../spec/sizes.js';
import { usableGpuBytes, usableMemoryBytes } from './derived.js';
import type { GpuFacts, MachineFacts } from './facts.js';

/** Of the memory, for the pinned arenas of all ranks; the rest is for the ranks' own, the system and the page cache. */
const HOST_SHARE = 0.8;

export interface FactsCluster {
  readonly cluster: ShortClusterInput;
  /** Where each number is from. */
  readonly sources: readonly string[];
}

export interface FactsClusterOptions {
  /** Ranks, a GPU each; default: as many as there are GPUs. */
  readonly ranks?: number | undefined;
  /** Name of a catalog entry whose rates to take; default: the one that has the GPU's name. */
  readonly gpu?: string | undefined;
}

/** Throws `no-gpu`, `mixed-gpus`, `mig-on`, `unknown-device` or `unknown-fact`, each with what to change. */
export function clusterFromFacts(facts: MachineFacts, { ranks, gpu }: FactsClusterOptions = {}): FactsCluster {
  const gpus = usableGpus(facts);
  const numRanks = ranks ?? gpus.length;
  if (numRanks < 1 || numRanks > gpus.length) {
    throw new FpdtError(`--ranks ${numRanks}: this machine has ${gpus.length} GPUs`, { code: 'usage', hint: `give 1 to ${gpus.length}` });
  }
  const found = gpuName(facts, gpus);
  const { name } = gpu === undefined ? entryOfBoard(found) : entryNamed(gpu);
  const host = hostShare(facts, numRanks);
  if (host === null) throw unknownFact('memory.totalBytes', facts, 'give the cluster as --gpus, --gpu and --host-bytes');
  const hbmBytes = smallestBytes(facts, gpus);
  return {
    cluster: { gpus: numRanks, gpu: name, ranksPerNode: numRanks, hbmBytes, hostBytes: host.hostBytes },
    sources: [
      `${numRanks} of ${gpus.length} GPUs '${found}': rates of the catalog's ${name}, not measured`,
      `hbm: ${formatBytes(hbmBytes)} a rank, by NVML`,
      `host: ${formatBytes(host.hostBytes)} a rank, ${host.source}`,
    ],
  };
}

/** Bytes of a rank's pinned arena; null where the memory of the machine is not known. */
export function hostShare(facts: MachineFacts, numRanks: number): { readonly hostBytes: number; readonly source: string } | null {
  const memoryBytes = usableMemoryBytes(facts);
  if (memoryBytes === null) return null;
  const whose = memoryBytes === facts.memory.totalBytes ? 'memory' : "the control group's limit";
  return {
    hostBytes: Math.floor((memoryBytes * HOST_SHARE) / numRanks),
    source: `${HOST_SHARE * 100}% of ${formatBytes(memoryBytes)} (${whose}) over ${numRanks} ranks`,
  };
}

function usableGpus({ gpus, unknown }: MachineFacts): readonly GpuFacts[] {
  if (gpus.length === 0) {
    throw new FpdtError(`this machine has no GPU that NVML knows${unknown['gpus'] === undefined ? '' : `: ${unknown['gpus']}`}`, {
      code: 'no-gpu',
      hint: 'measure a CPU machine: fpdt calibrate --model config.json --output cluster.json',
    });
  }
  const split = gpus.filter(({ isMigOn }) => isMigOn === true).map(({ index }) => index);
  if (split.length === 0) return gpus;
  throw new FpdtError(`MIG is on at GPU ${split.join(', ')}: a rank would have an instance, of which the catalog has no rates`, {
    code: 'mig-on',
    hint: 'nvidia-smi -mig 0, or give the cluster as --gpus, --gpu and --hbm-bytes',
  });
}

/** Ranks do the same work in the same time, so all GPUs must be of one kind. */
function gpuName(facts: MachineFacts, gpus: readonly GpuFacts[]): string {
  const names = [...new Set(gpus.map(({ name }) => name))];
  const [name] = names;
  const place = gpus.findIndex((gpu) => gpu.name === null);
  if (name === null || name === undefined || place >= 0) throw unknownFact(`gpus.${place}.name`, facts, 'look at nvidia-smi');
  if (names.length === 1) return name;
  throw new FpdtError(`this machine has GPUs of different kinds: ${names.join(', ')}`, {
    code: 'mixed-gpus',
    hint: 'plan for those of one kind: --gpus and --gpu, and CUDA_VISIBLE_DEVICES for the run',
  });
}

function smallestBytes(facts: MachineFacts, gpus: readonly GpuFacts[]): number {
  const sizes = gpus.map(usableGpuBytes);
  const place = sizes.indexOf(null);
  if (place >= 0) throw unknownFact(`gpus.${place}.memoryTotalBytes`, facts, 'give the cluster as --gpus, --gpu and --hbm-bytes');
  return Math.min(...sizes.map(Number));
}

function unknownFact(path: string, { unknown }: MachineFacts, hint: string): FpdtError {
  return new FpdtError(`${path} is not known: ${unknown[path] ?? 'no reason given'}`, { code: 'unknown-fact', hint });
}
