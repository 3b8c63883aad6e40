/** A user's ds_config, taken as it is: checked strictly, `auto` resolved, defaults that matter written out. */
import { resolveAuto } from './deepspeedAuto.js';
import { type Batch, resolveBatch } from './deepspeedBatch.js';
import { checkKeys } from './deepspeedCheck.js';
import { checkPrecision, resolveDtype } from './deepspeedPrecision.js';
import { refuseUnsupportedDeepSpeed } from './deepspeedRefuse.js';
import { FpdtError } from './errors.js';
import { resolveParallelism } from './parallelism.js';
import { type JsonObject, readJsonObject } from './parseJson.js';
import type { RunInput } from './runInput.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, RunSpec } from './types.js';

/** What a ds_config is checked against. */
export interface DeepSpeedFacts {
  readonly model: ModelSpec;
  readonly cluster: ClusterSpec;
  readonly run: RunInput;
}

export interface ParsedDeepSpeed {
  /** What DeepSpeed gets. */
  readonly config: DeepSpeedConfig;
  readonly zeroStage: RunSpec['zeroStage'];
  readonly gradientAccumulationSteps: number;
  readonly gradientClipping: number;
  readonly dtype: RunSpec['dtype'];
  readonly sequenceParallelSize: number;
}

/** DeepSpeed 0.19.8 clips at 1.0 unless told otherwise (GRADIENT_CLIPPING_DEFAULT, runtime/constants.py). */
const DEFAULT_GRADIENT_CLIPPING = 1.0;
/** For a ds_config without an optimizer; PyTorch's AdamW defaults but for the learning rate. */
const DEFAULT_OPTIMIZER = { type: 'AdamW', params: { lr: 1e-4, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 } };

export function parseDeepSpeed(input: string | JsonObject, facts: DeepSpeedFacts): ParsedDeepSpeed {
  const given = checkKeys(readJsonObject(input, 'deepspeed'));
  const dtype = resolveDtype(given, facts.run, facts.cluster);
  const auto = resolveAuto(given, { hiddenSize: facts.model.hiddenSize, dtype, numSteps: facts.run.numSteps ?? 1 });
  refuseUnsupportedDeepSpeed(auto);
  checkPrecision(auto, { dtype, lossScale: facts.run.lossScale });
  const { sequenceParallelSize, dataParallelSize } = resolveParallelism(facts.run, facts.model, facts.cluster, sizeOf(auto));
  checkDataParallelSize(auto, dataParallelSize);
  const batch = resolveBatch(auto, dataParallelSize);
  const config = resolved(auto, batch, dtype, facts.cluster.device);
  return {
    config,
    zeroStage: stageOf(auto),
    gradientAccumulationSteps: batch.gradientAccumulationSteps,
    gradientClipping: config.gradient_clipping as number,
    dtype,
    sequenceParallelSize,
  };
}

function sizeOf(config: JsonObject): number | undefined {
  return config.sequence_parallel_size as number | undefined;
}

function checkDataParallelSize(config: JsonObject, dataParallelSize: number): void {
  const given = config.data_parallel_size;
  if (given === undefined || given === dataParallelSize) return;
  throw new FpdtError(
    `deepspeed.data_parallel_size is ${JSON.stringify(given)} but the ranks leave room for ${dataParallelSize} replicas`,
    {
      code: 'conflict',
      hint: `set data_parallel_size to ${dataParallelSize} or leave it out`,
    },
  );
}

function stageOf(config: JsonObject): RunSpec['zeroStage'] {
  return (((config.zero_optimization ?? {}) as JsonObject).stage ?? 0) as RunSpec['zeroStage'];
}

/**
 * The batch is written as micro-batch size and accumulation steps alone: DeepSpeed then derives train_batch_size itself.
 * Sizes of the sequence and data parallel groups are left out, since they would make it build groups of its own.
 */
function resolved(config: JsonObject, batch: Batch, dtype: RunSpec['dtype'], device: ClusterSpec['device']): DeepSpeedConfig {
  const { train_batch_size: _, sequence_parallel_size: __, data_parallel_size: ___, ...rest } = config;
  return {
    ...rest,
    train_micro_batch_size_per_gpu: 1,
    gradient_accumulation_steps: batch.gradientAccumulationSteps,
    gradient_clipping: config.gradient_clipping ?? DEFAULT_GRADIENT_CLIPPING,
    zero_optimization: { ...(config.zero_optimization as JsonObject | undefined), stage: stageOf(config) },
    bf16: { ...(config.bf16 as JsonObject | undefined), enabled: dtype === 'bfloat16' },
    ...(config.fp16 === undefined && dtype !== 'float16'
      ? {}
      : { fp16: { ...(config.fp16 as JsonObject | undefined), enabled: dtype === 'float16' } }),
    optimizer: config.optimizer ?? defaultOptimizer(device),
  };
}

/** Without torch_adam DeepSpeed compiles an optimizer in C++ at start-up; on a CPU that is rarely wanted by default. */
function defaultOptimizer(device: ClusterSpec['device']): JsonObject {
  if (device === 'cuda') return DEFAULT_OPTIMIZER;
  return { ...DEFAULT_OPTIMIZER, params: { ...DEFAULT_OPTIMIZER.params, torch_adam: true } };
}
