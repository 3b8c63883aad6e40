/** The settings of a ds_config that memory and time depend on, with DeepSpeed's defaults (runtime/zero/config.py). Sizes in elements. */
import type { DeepSpeedConfig, RunSpec } from '../spec/types.js';

export interface ZeroSettings {
  readonly stage: RunSpec['zeroStage'];
  readonly reduceBucketElements: number;
  readonly overlapComm: boolean;
  readonly subGroupElements: number;
  readonly maxLiveElements: number;
  readonly persistenceThreshold: number;
  /** 0: weights are gathered when a module needs them, not before. */
  readonly prefetchBucketElements: number;
  readonly offloadOptimizer: boolean;
  /** What is offloaded is copied into pinned memory. */
  readonly pinOptimizer: boolean;
  /** PyTorch's Adam, not DeepSpeed's own kernels. */
  readonly torchAdam: boolean;
  /** Gradients accumulate in fp32 whatever the weights' dtype (data_types.grad_accum_dtype). */
  readonly accumulateInFp32: boolean;
}

type Section = Readonly<Record<string, unknown>>;

export function zeroSettings(config: DeepSpeedConfig): ZeroSettings {
  const zero = (config.zero_optimization ?? {}) as Section;
  const stage = (zero.stage ?? 0) as RunSpec['zeroStage'];
  const number = (key: string, fallback: number): number => (zero[key] as number | undefined) ?? fallback;
  const offload = (zero.offload_optimizer ?? {}) as Section;
  const optimizer = (config.optimizer ?? {}) as Section;
  const dataTypes = (config.data_types ?? {}) as Section;
  return {
    stage,
    reduceBucketElements: number('reduce_bucket_size', 5e8),
    overlapComm: (zero.overlap_comm as boolean | undefined) ?? stage === 3,
    subGroupElements: number('sub_group_size', 1e9),
    maxLiveElements: number('stage3_max_live_parameters', 1e9),
    persistenceThreshold: number('stage3_param_persistence_threshold', 1e5),
    prefetchBucketElements: (zero.stage3_prefetch_bucket_size ?? zero.prefetch_bucket_size ?? 5e7) as number,
    offloadOptimizer: offload.device === 'cpu',
    pinOptimizer: offload.pin_memory === true,
    torchAdam: ((optimizer.params ?? {}) as Section).torch_adam === true,
    accumulateInFp32: dataTypes.grad_accum_dtype === 'fp32',
  };
}
