/** A user's ds_config, taken as it is: checked as DeepSpeed checks it, `auto` resolved, defaults that matter written out. */
import { isFilled, resolveAuto } from './deepspeedAuto.js';
import { type Batch, replicasOf, resolveBatch } from './deepspeedBatch.js';
import { checkKeys } from './deepspeedCheck.js';
import { diskProblems } from './deepspeedDisk.js';
import type { DeepSpeedSource } from './deepspeedFile.js';
import { offloadProblems, optimizerDisk } from './deepspeedOffload.js';
import { precisionProblems, resolveDtype } from './deepspeedPrecision.js';
import { unsupportedProblems } from './deepspeedRefuse.js';
import { withNewNames } from './deepspeedRenamed.js';
import { OURS } from './deepspeedOurs.js';
import { DeepSpeedReport, type Problem } from './deepspeedReport.js';
import { secondaryPartitionProblems } from './deepspeedSecondary.js';
import { weightsDiskProblems } from './deepspeedWeightsDisk.js';
import { resolveParallelism } from './parallelism.js';
import { type JsonObject, valueIn } from './parseJson.js';
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

/** Throws one FpdtError for all that is wrong with a config; its problems know their lines where it is a file. */
export function parseDeepSpeed(source: DeepSpeedSource, facts: DeepSpeedFacts): ParsedDeepSpeed {
  const report = new DeepSpeedReport(source.lines);
  const parsed = parseInto(report, source, facts);
  report.throwIfAny();
  return parsed;
}

function parseInto(report: DeepSpeedReport, source: DeepSpeedSource, { model, cluster, run }: DeepSpeedFacts): ParsedDeepSpeed {
  report.add(...(source.problems ?? []));
  const given = withNewNames(checkKeys(source.config, report, isFilled(source.config)), report);
  const dtype = resolveDtype(given, { run, cluster }, report);
  const auto = resolveAuto(given, { hiddenSize: model.hiddenSize, dtype, numSteps: run.numSteps ?? 1 }, report);
  const stage = stageOf(auto);
  report.add(
    ...unsupportedProblems(auto, { stage, dtype, device: cluster.device, numRanks: cluster.numRanks }),
    ...precisionProblems(auto, { dtype, lossScale: run.lossScale }),
    ...offloadProblems(auto),
    ...weightsDiskProblems(auto, cluster),
    ...diskProblems(auto, cluster),
    ...secondaryPartitionProblems(auto, cluster),
  );
  // What is wrong with it might look like a conflict of the ranks.
  report.throwIfAny();
  const { sequenceParallelSize, dataParallelSize } = resolveParallelism(run, model, cluster, sizeOf(auto, run, cluster));
  report.add(...dataParallelProblems(auto, dataParallelSize));
  const batch = resolveBatch(auto, dataParallelSize, report);
  const config = resolved(auto, { batch, dtype, device: cluster.device, report });
  return {
    config,
    zeroStage: stage,
    gradientAccumulationSteps: batch.gradientAccumulationSteps,
    gradientClipping: config.gradient_clipping as number,
    dtype,
    sequenceParallelSize,
  };
}

/** The config's own size; or where nothing else says how ranks are split, the one that its batch leaves. */
function sizeOf(config: JsonObject, run: RunInput, { numRanks }: ClusterSpec): number | undefined {
  const own = config.sequence_parallel_size as number | undefined;
  if (own !== undefined || run.sequenceParallelSize !== undefined || run.dataParallelSize !== undefined) return own;
  const replicas = replicasOf(config, numRanks);
  return replicas === undefined ? undefined : numRanks / replicas;
}

function dataParallelProblems(config: JsonObject, dataParallelSize: number): readonly Problem[] {
  const path = 'data_parallel_size';
  const given = config[path];
  if (given === undefined || given === dataParallelSize) return [];
  const text = ` is ${JSON.stringify(given)} but the ranks leave room for ${dataParallelSize} replicas`;
  return [{ path, text, code: 'conflict', hint: `set data_parallel_size to ${dataParallelSize} or leave it out` }];
}

function stageOf(config: JsonObject): RunSpec['zeroStage'] {
  return (((config.zero_optimization ?? {}) as JsonObject).stage ?? 0) as RunSpec['zeroStage'];
}

/** DeepSpeed does not look at the parameters of a scheduler without a type. */
function withoutUntypedScheduler(config: JsonObject, report: DeepSpeedReport): JsonObject {
  const { scheduler, ...rest } = config;
  if (scheduler === undefined || typeof valueIn(config, ['scheduler', 'type']) === 'string') return config;
  report.remarks.push('deepspeed.scheduler has no type: DeepSpeed uses none, and the learning rate stays as it is');
  return rest;
}

interface Resolution {
  readonly batch: Batch;
  readonly dtype: RunSpec['dtype'];
  readonly device: ClusterSpec['device'];
  readonly report: DeepSpeedReport;
}

/**
 * The batch is written as micro-batch size and accumulation steps alone: DeepSpeed then derives train_batch_size itself.
 * Sizes of the sequence and data parallel groups are left out, since they would make it build groups of its own. The remarks go with it,
 * in a section that DeepSpeed does not look at.
 */
function resolved(given: JsonObject, { batch, dtype, device, report }: Resolution): DeepSpeedConfig {
  const config = withoutUntypedScheduler(given, report);
  const { train_batch_size: _, sequence_parallel_size: __, data_parallel_size: ___, ...rest } = config;
  const { remarks } = report;
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
    optimizer: typeof valueIn(config, ['optimizer', 'type']) === 'string' ? config.optimizer : defaultOptimizer(device),
    ...oursOf(config, remarks),
  };
}

/** What a plan's worker or summary needs to know beside it. */
function oursOf(config: JsonObject, remarks: readonly string[]): JsonObject {
  const disk = optimizerDisk(config);
  const ours = {
    ...(remarks.length === 0 ? {} : { remarks: [...new Set(remarks)] }),
    ...(disk === undefined ? {} : { diskBytesPerParameter: disk.bytesPerParameter }),
  };
  return Object.keys(ours).length === 0 ? {} : { [OURS]: ours };
}

/** Without torch_adam DeepSpeed compiles an optimizer in C++ at start-up; on a CPU that is rarely wanted by default. */
function defaultOptimizer(device: ClusterSpec['device']): JsonObject {
  if (device === 'cuda') return DEFAULT_OPTIMIZER;
  return { ...DEFAULT_OPTIMIZER, params: { ...DEFAULT_OPTIMIZER.params, torch_adam: true } };
}
