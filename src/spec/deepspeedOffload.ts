/** Where offload_optimizer keeps an optimizer's states: in host memory, or, under ZeRO-3 alone, on a disk of the rank's host. */
import { diskBlocks, type DiskBlocks, diskProblem, inSection, isOnDisk } from './deepspeedDisk.js';
import { optimizerFacts } from './deepspeedOptimizer.js';
import { isOptimizerOnHost } from './deepspeedOptimizerPlace.js';
import type { Problem } from './deepspeedReport.js';
import { type JsonObject, valueIn } from './parseJson.js';

const SECTION = 'offload_optimizer';

/** How DeepSpeed's swappers move states (runtime/swap_tensor/optimizer_utils.py). */
export interface OptimizerDisk extends DiskBlocks {
  /** Page-locked buffers, each of the largest sub-group. */
  readonly numBuffers: number;
  /** Sub-groups in memory together: with pipeline_read the next one too, with pipeline_write the one before (PipelinedOptimizerSwapper). */
  readonly numAtOnce: number;
  /** Of master weight, states and gradient, for each parameter. */
  readonly bytesPerParameter: number;
}

const FP32 = 4;
const PIPELINES = ['pipeline_read', 'pipeline_write'];

/** Undefined where states are elsewhere. */
export function optimizerDisk(config: JsonObject): OptimizerDisk | undefined {
  if (!isOnDisk(config, SECTION)) return undefined;
  return {
    ...diskBlocks(config),
    numBuffers: Number(inSection(config, SECTION, 'buffer_count') ?? 4),
    numAtOnce: 1 + PIPELINES.filter((key) => inSection(config, SECTION, key) === true).length,
    bytesPerParameter: 2 * FP32 + (optimizerFacts(config)?.stateBytes ?? 2 * FP32),
  };
}

/** What of the section DeepSpeed would ignore, or fail on at the first step. */
export function offloadProblems(config: JsonObject): readonly Problem[] {
  if (!isOptimizerOnHost(config)) return [];
  // At stage 0 it would ignore the section.
  if (Number(valueIn(config, ['zero_optimization', 'stage']) ?? 0) === 0) {
    return [diskProblem(SECTION, '', [': ZeRO stage 0 has nothing to offload', 'unsupported', 'use stage 1, 2 or 3'])];
  }
  const disk = optimizerDisk(config);
  return disk === undefined ? [] : bufferProblems(disk);
}

/** Weight, states and gradient. */
export function tensorsOf({ bytesPerParameter }: Pick<OptimizerDisk, 'bytesPerParameter'>): number {
  return bytesPerParameter / FP32;
}

/** All tensors of a sub-group are in memory together (`swap_in_optimizer_state` asserts it). */
function bufferProblems({ numBuffers, bytesPerParameter }: OptimizerDisk): readonly Problem[] {
  const needed = tensorsOf({ bytesPerParameter });
  if (numBuffers >= needed) return [];
  const text = `: ${numBuffers} do not hold a weight, its states and its gradient`;
  return [diskProblem(SECTION, '.buffer_count', [text, 'invalid-value', `buffer_count=${needed} works`])];
}
