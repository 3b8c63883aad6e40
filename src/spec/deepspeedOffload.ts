/** Where offload_optimizer keeps an optimizer's states: in host memory, or, under ZeRO-3 alone, on a disk of the rank's host. */
import type { Problem } from './deepspeedReport.js';
import { type JsonObject, valueIn } from './parseJson.js';
import { optimizerFacts } from './deepspeedOptimizer.js';
import { isOptimizerOnHost } from './deepspeedOptimizerPlace.js';
import type { ClusterSpec } from './types.js';

const SECTION = 'zero_optimization.offload_optimizer';

/** How DeepSpeed's PartitionedOptimizerSwapper moves states (runtime/swap_tensor/optimizer_utils.py). Sizes in bytes. */
export interface OptimizerDisk {
  /** Page-locked buffers, each of the largest sub-group. */
  readonly numBuffers: number;
  /** Tensors are whole multiples of it on the disk. */
  readonly alignmentBytes: number;
  /** Smaller tensors stay in host memory. */
  readonly leastBytes: number;
  /** Of master weight, states and gradient, for each parameter. */
  readonly bytesPerParameter: number;
}

/** MIN_AIO_BYTES and AIO_ALIGNED_BYTES, runtime/swap_tensor/utils.py. */
const LEAST_BYTES = 1024 ** 2;
const ALIGNED_BYTES = 1024;
const FP32 = 4;

/** Undefined where states are elsewhere. */
export function optimizerDisk(config: JsonObject): OptimizerDisk | undefined {
  if (at(config, 'device') !== 'nvme' || stageOf(config) !== 3) return undefined;
  const aio = (key: string, fallback: number): number => Number(valueIn(config, ['aio', key]) ?? fallback);
  return {
    numBuffers: Number(at(config, 'buffer_count') ?? 4),
    alignmentBytes: ALIGNED_BYTES * aio('intra_op_parallelism', 1),
    leastBytes: Math.max(LEAST_BYTES, aio('block_size', LEAST_BYTES)),
    bytesPerParameter: 2 * FP32 + (optimizerFacts(config)?.stateBytes ?? 2 * FP32),
  };
}

/** What of the section DeepSpeed would ignore, or fail on at the first step. */
export function offloadProblems(config: JsonObject, { rates }: Pick<ClusterSpec, 'rates'>): readonly Problem[] {
  if (!isOptimizerOnHost(config)) return [];
  // At stage 0 it would ignore the section.
  if (stageOf(config) === 0) return [problem('', ': ZeRO stage 0 has nothing to offload', 'unsupported', 'use stage 1, 2 or 3')];
  const disk = optimizerDisk(config);
  return disk === undefined ? [] : [...pathProblems(config), ...pipelineProblems(config), ...bufferProblems(disk), ...rateProblems(rates)];
}

function pathProblems(config: JsonObject): readonly Problem[] {
  const path = at(config, 'nvme_path') ?? '';
  const hint = 'write "nvme_path": "/FOLDER", a folder on a disk of every host';
  if (path === '') return [problem('.nvme_path', ': states go to a disk, and no folder is named', 'missing-key', hint)];
  if (typeof path === 'string' && path.startsWith('/')) return [];
  return [problem('.nvme_path', `: expected a path from the root on, found ${JSON.stringify(path)}`, 'invalid-value', hint)];
}

/** PipelinedOptimizerSwapper: it reads a sub-group's gradients before they are there for the first time, and takes twice the buffers. */
function pipelineProblems(config: JsonObject): readonly Problem[] {
  return ['pipeline_read', 'pipeline_write']
    .filter((key) => at(config, key) === true)
    .map((key) =>
      problem(`.${key}`, ': true is not supported: memory is planned for one sub-group at a time', 'unsupported', 'set it to false'),
    );
}

/** All tensors of a sub-group are in memory together (`swap_in_optimizer_state` asserts it). */
function bufferProblems({ numBuffers, bytesPerParameter }: OptimizerDisk): readonly Problem[] {
  const needed = bytesPerParameter / FP32;
  if (numBuffers >= needed) return [];
  const text = `: ${numBuffers} do not hold a weight, its states and its gradient`;
  return [problem('.buffer_count', text, 'invalid-value', `buffer_count=${needed} works`)];
}

function rateProblems({ diskReadBytes, diskWriteBytes }: ClusterSpec['rates']): readonly Problem[] {
  if (diskReadBytes > 0 && diskWriteBytes > 0) return [];
  const hint = 'give both in cluster.rates, in bytes a second, or use device "cpu"';
  return [problem('.device', ': "nvme" needs rates of a disk, and the cluster has no diskReadBytes and diskWriteBytes', 'conflict', hint)];
}

function problem(key: string, text: string, code: string, hint: string): Problem {
  const path = `${SECTION}${key}`;
  return { path, text, code, hint, details: { path } };
}

function at(config: JsonObject, key: string): unknown {
  return valueIn(config, [...SECTION.split('.'), key]);
}

function stageOf(config: JsonObject): number {
  return Number(valueIn(config, ['zero_optimization', 'stage']) ?? 0);
}
