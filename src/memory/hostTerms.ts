/** What a rank on a GPU takes of the host, and of the device for the host, beside tensors. The pools of a CPU hold tensors alone. */
import type { ClusterSpec } from '../spec/types.js';
import { derived, type MemoryItem } from './items.js';

const GIB = 1024 ** 3;
/** Arenas are mapped without huge pages (python/fpdt/run/arena.py). */
const PAGE_BYTES = 4096;
/** Of an entry of a page table. */
const ENTRY_BYTES = 8;
/** NVIDIA's driver keeps 16 bytes a page of memory that is registered at once (LMCache issue 5177). */
const DRIVER_BYTES = 16;
/** Python with torch, DeepSpeed and transformers has 0.3 GiB resident without a GPU; the rest is CUDA's, its libraries' and NCCL's. */
const PROCESS_BYTES = 3 * GIB;
/** One block, through which states of a GPU or on a disk reach a checkpoint (`BLOCK_BYTES`, python/fpdt/checkpoint/staging.py). */
const CHECKPOINT_STAGING_BYTES = 16 * 1024 ** 2;

/** `arenaBytes`: of the pinned arena. */
export function hostItems(device: ClusterSpec['device'], arenaBytes: number): readonly MemoryItem[] {
  if (device === 'cpu') return [];
  return [
    processItem(),
    derived('page tables', perPage(arenaBytes, ENTRY_BYTES), '8 B for each page of 4 KiB of the arena'),
    checkpointStaging('one page-locked block'),
    assumed('registration of the arena', perPage(arenaBytes, DRIVER_BYTES), '16 B a page in the driver (LMCache issue 5177)'),
  ];
}

/** Where the device finds pinned memory. */
export function devicePageTables(device: ClusterSpec['device'], arenaBytes: number): readonly MemoryItem[] {
  if (device === 'cpu') return [];
  return [assumed('page tables of pinned memory', perPage(arenaBytes, ENTRY_BYTES), '8 B for each page of 4 KiB of the host arena')];
}

export function checkpointStaging(what: string): MemoryItem {
  return derived('checkpoint staging', CHECKPOINT_STAGING_BYTES, `${what}, taken where a run saves checkpoints`);
}

/** There from the start on. */
export function processItem(): MemoryItem {
  return assumed(
    'process',
    PROCESS_BYTES,
    'resident memory of Python, torch, DeepSpeed, CUDA and NCCL: 0.3 GiB of it measured without a GPU',
  );
}

function perPage(bytes: number, each: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * each;
}

function assumed(name: string, bytes: number, note: string): MemoryItem {
  return { name, bytes, provenance: 'assumed', note };
}
