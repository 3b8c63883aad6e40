/**
 * The settings of a ds_config that memory and time depend on, with DeepSpeed's defaults (runtime/zero/config.py, offload_config.py). Sizes
 * in elements.
 */
import type { ModelDtype } from '../spec/dtype.js';
import { type OptimizerDisk, optimizerDisk } from '../spec/deepspeedOffload.js';
import { type OptimizerFacts, optimizerFacts } from '../spec/deepspeedOptimizer.js';
import { isOptimizerOnHost } from '../spec/deepspeedOptimizerPlace.js';
import { type WeightsDisk, weightsDisk } from '../spec/deepspeedWeightsDisk.js';
import type { DeepSpeedConfig, RunSpec } from '../spec/types.js';

export interface ZeroSettings {
  readonly stage: RunSpec['zeroStage'];
  readonly reduceBucketElements: number;
  readonly overlapComm: boolean;
  readonly subGroupElements: number;
  readonly maxLiveElements: number;
  /** A weight of at most so many elements stays whole, as long as all of those together have at most as many as the model's. */
  readonly persistenceThreshold: number;
  readonly modelPersistenceThreshold: number;
  /** 0: weights are gathered when a module needs them, not before. */
  readonly prefetchBucketElements: number;
  /** Weights that are gathered together go through one buffer, and are copied out of it. */
  readonly coalescesGathers: boolean;
  /** Gradients are copied into one buffer as they come. */
  readonly contiguousGradients: boolean;
  readonly reduceScatter: boolean;
  /** Of gradients on their way; left out: that of the weights. */
  readonly communicationDtype: ModelDtype | undefined;
  readonly offloadOptimizer: boolean;
  /** Of stage 3: states are on a disk, and in host memory for as long as they are updated. */
  readonly optimizerDisk: OptimizerDisk | undefined;
  /** Of stage 3: a rank's share of the weights is on the host, in pinned memory or not, and comes to the device to be gathered. */
  readonly offloadWeights: 'pinned' | 'pageable' | undefined;
  /** Of stage 3: they are on a disk, as far as they are large enough and there is no place for them in host memory. */
  readonly weightsDisk: WeightsDisk | undefined;
  /** What is offloaded is copied into pinned memory. */
  readonly pinOptimizer: boolean;
  readonly optimizer: Omit<OptimizerFacts, 'name' | 'isUntested'>;
  /** Gradients accumulate in fp32 whatever the weights' dtype (data_types.grad_accum_dtype). */
  readonly accumulateInFp32: boolean;
}

const COMMUNICATION_DTYPES: Readonly<Record<string, ModelDtype>> = { fp32: 'float32', bf16: 'bfloat16', fp16: 'float16' };

/** Of a config that names no optimizer. */
const ADAM: ZeroSettings['optimizer'] = { label: 'Adam', stateBytes: 8, updateBytes: 0, isTorch: false };

type Section = Readonly<Record<string, unknown>>;

const known = new WeakMap<DeepSpeedConfig, ZeroSettings>();

/** Found once for a config, which nothing changes. */
export function zeroSettings(config: DeepSpeedConfig): ZeroSettings {
  const settings = known.get(config) ?? settingsOf(config);
  known.set(config, settings);
  return settings;
}

function settingsOf(config: DeepSpeedConfig): ZeroSettings {
  const zero = (config.zero_optimization ?? {}) as Section;
  const stage = (zero.stage ?? 0) as RunSpec['zeroStage'];
  const number = (key: string, fallback: number): number => (zero[key] as number | undefined) ?? fallback;
  const offload = (zero.offload_optimizer ?? {}) as Section;
  const param = (zero.offload_param ?? {}) as Section;
  const offloadOptimizer = isOptimizerOnHost(config);
  const dataTypes = (config.data_types ?? {}) as Section;
  return {
    stage,
    reduceBucketElements: number('reduce_bucket_size', 5e8),
    overlapComm: (zero.overlap_comm as boolean | undefined) ?? stage === 3,
    subGroupElements: number('sub_group_size', 1e9),
    maxLiveElements: number('stage3_max_live_parameters', 1e9),
    persistenceThreshold: number('stage3_param_persistence_threshold', 1e5),
    modelPersistenceThreshold: number('stage3_model_persistence_threshold', Number.MAX_SAFE_INTEGER),
    // One after the other, DeepSpeed fetches no weight ahead but the next.
    prefetchBucketElements: zero.stage3_allgather_sequential === true ? 1 : number('stage3_prefetch_bucket_size', 5e7),
    coalescesGathers: zero.stage3_allgather_sequential !== true && zero.stage3_use_all_reduce_for_fetch_params !== true,
    // An optimizer on the host takes them from a buffer in stages 1 and 2 (zero/stage_1_and_2.py).
    contiguousGradients: zero.contiguous_gradients !== false || (offloadOptimizer && stage < 3),
    reduceScatter: zero.reduce_scatter !== false,
    communicationDtype: COMMUNICATION_DTYPES[((config.communication_data_type ?? '') as string).toLowerCase()],
    offloadOptimizer,
    optimizerDisk: optimizerDisk(config),
    offloadWeights: stage === 3 && isAway(param.device) ? (param.pin_memory === false ? 'pageable' : 'pinned') : undefined,
    weightsDisk: weightsDisk(config),
    pinOptimizer: offload.pin_memory !== false,
    optimizer: optimizerFacts(config) ?? ADAM,
    accumulateInFp32: dataTypes.grad_accum_dtype === 'fp32',
  };
}

function isAway(device: unknown): boolean {
  return device === 'cpu' || device === 'nvme';
}
