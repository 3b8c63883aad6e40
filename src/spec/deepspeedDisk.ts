/** What the sections of zero_optimization that may name a disk have in common: DeepSpeed's blocks, a folder, rates, the aio section. */
import type { Problem } from './deepspeedReport.js';
import { type JsonObject, valueIn } from './parseJson.js';
import type { ClusterSpec } from './types.js';

/** Of zero_optimization. */
const DISK_SECTIONS = ['offload_optimizer', 'offload_param'] as const;
export type DiskSection = (typeof DISK_SECTIONS)[number];

/** How DeepSpeed reads and writes tensors (runtime/swap_tensor/utils.py). Sizes in bytes. */
export interface DiskBlocks {
  /** Tensors are whole multiples of it on the disk. */
  readonly alignmentBytes: number;
  /** Smaller tensors stay in host memory. */
  readonly leastBytes: number;
}

/** MIN_AIO_BYTES and AIO_ALIGNED_BYTES. */
const LEAST_BYTES = 1024 ** 2;
const ALIGNED_BYTES = 1024;

/** Under ZeRO-3 alone: below, DeepSpeed keeps states in host memory and weights where they are. */
export function isOnDisk(config: JsonObject, section: DiskSection): boolean {
  return inSection(config, section, 'device') === 'nvme' && Number(valueIn(config, ['zero_optimization', 'stage']) ?? 0) === 3;
}

export function diskBlocks(config: JsonObject): DiskBlocks {
  const aio = (key: string, fallback: number): number => Number(valueIn(config, ['aio', key]) ?? fallback);
  return {
    alignmentBytes: ALIGNED_BYTES * aio('intra_op_parallelism', 1),
    leastBytes: Math.max(LEAST_BYTES, aio('block_size', LEAST_BYTES)),
  };
}

/** What is wrong with a folder, or with what both sections need. */
export function diskProblems(config: JsonObject, { rates }: Pick<ClusterSpec, 'rates'>): readonly Problem[] {
  const sections = DISK_SECTIONS.filter((section) => isOnDisk(config, section));
  if (sections.length === 0) return [];
  return [...sections.flatMap((section) => [...pathProblems(config, section), ...rateProblems(section, rates)]), ...nullProblems(config)];
}

export function diskProblem(section: DiskSection, key: string, [text, code, hint]: readonly [string, string, string]): Problem {
  const path = `zero_optimization.${section}${key}`;
  return { path, text, code, hint, details: { path } };
}

export function inSection(config: JsonObject, section: DiskSection, key: string): unknown {
  return valueIn(config, ['zero_optimization', section, key]);
}

function pathProblems(config: JsonObject, section: DiskSection): readonly Problem[] {
  const path = inSection(config, section, 'nvme_path') ?? '';
  const hint = 'write "nvme_path": "/FOLDER", a folder on a disk of every host';
  const what = section === 'offload_optimizer' ? 'states' : 'weights';
  if (path === '') return [diskProblem(section, '.nvme_path', [`: ${what} go to a disk, and no folder is named`, 'missing-key', hint])];
  if (typeof path === 'string' && path.startsWith('/')) return [];
  const text = `: expected a path from the root on, found ${JSON.stringify(path)}`;
  return [diskProblem(section, '.nvme_path', [text, 'invalid-value', hint])];
}

function rateProblems(section: DiskSection, { diskReadBytes, diskWriteBytes }: ClusterSpec['rates']): readonly Problem[] {
  if (diskReadBytes > 0 && diskWriteBytes > 0) return [];
  const text = ': "nvme" needs rates of a disk, and the cluster has no diskReadBytes and diskWriteBytes';
  const hint = 'give both in cluster.rates, in bytes a second, or use device "cpu"';
  return [diskProblem(section, '.device', [text, 'conflict', hint])];
}

/** Numbers that DeepSpeed keeps as null, and fails on when it opens the disk. */
function nullProblems(config: JsonObject): readonly Problem[] {
  return ['block_size', 'queue_depth', 'intra_op_parallelism']
    .filter((key) => valueIn(config, ['aio', key]) === null)
    .map((key) => ({
      path: `aio.${key}`,
      text: ': expected a whole number where something is on a disk, found null',
      code: 'invalid-value',
      hint: 'give a whole number > 0, or leave it out',
    }));
}
