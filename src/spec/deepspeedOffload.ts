/** Where offload_optimizer keeps an optimizer's states: in host memory, or, under ZeRO-3 alone, on a disk of the rank's host. */
import { diskBlocks, type DiskBlocks, diskProblem, inSection, isOnDisk } from './deepspeedDisk.js';
import { optimizerFacts } from './deepspeedOptimizer.js';
import { isOptimizerOnHost } from './deepspeedOptimizerPlace.js';
import type { Problem } from './deepspeedReport.js';
import { type JsonObject, valueIn } from './parseJson.js';

const SECTION = 'offload_optimizer';

/** How DeepSpeed's PartitionedOptimizerSwapper moves states (runtime/swap_tensor/optimizer_utils.py). */
export interface OptimizerDisk extends DiskBlocks {
  /** Page-locked buffers, each of the largest sub-group. */
  readonly numBuffers: number;
  /** Of master weight, states and gradient, for each parameter. */
  readonly bytesPerParameter: number;
}

const FP32 = 4;

/** Undefined where states are elsewhere. */
export function optimizerDisk(config: JsonObject): OptimizerDisk | undefined {
  if (!isOnDisk(config, SECTION)) return undefined;
  return {
    ...diskBlocks(config),
    numBuffers: Number(inSection(config, SECTION, 'buffer_count') ?? 4),
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
  return disk === undefined ? [] : [...pipelineProblems(config), ...bufferProblems(disk)];
}

/**
 * PipelinedOptimizerSwapper has buffers of the next sub-group, and of the last, beside those of the one that is updated: with DeepSpeed's four
 * it runs out of them at the first update.
 */
function pipelineProblems(config: JsonObject): readonly Problem[] {
  return ['pipeline_read', 'pipeline_write']
    .filter((key) => inSection(config, SECTION, key) === true)
    .map((key) =>
      diskProblem(SECTION, `.${key}`, [
        ': true is not supported: memory is planned for one sub-group at a time',
        'unsupported',
        'set it to false',
      ]),
    );
}

/** All tensors of a sub-group are in memory together (`swap_in_optimizer_state` asserts it). */
function bufferProblems({ numBuffers, bytesPerParameter }: OptimizerDisk): readonly Problem[] {
  const needed = bytesPerParameter / FP32;
  if (numBuffers >= needed) return [];
  const text = `: ${numBuffers} do not hold a weight, its states and its gradient`;
  return [diskProblem(SECTION, '.buffer_count', [text, 'invalid-value', `buffer_count=${needed} works`])];
}
