/**
 * Keys of a ds_config that DeepSpeed 0.19.8 knows, with their types; read from runtime/config.py, constants.py,
 * zero/config.py, zero/offload_config.py, precision_config.py and the config modules of its sections. DeepSpeed itself
 * refuses unknown keys only inside some sections; a misspelt top-level key would be ignored in silence.
 */
export type KeyType = 'integer' | BoundedType | 'number' | 'boolean' | 'string' | 'list' | 'object' | 'any';
/** Bounds of fields, which DeepSpeed checks only when the ranks have started (`gt`, `ge` and `le` of pydantic). */
export type BoundedType = 'integer >0' | 'integer >=0' | 'number >=0 <=1';
export interface KeyTable {
  readonly [key: string]: KeyType | KeyTable;
}

const integers = (...keys: string[]): KeyTable => Object.fromEntries(keys.map((key) => [key, 'integer' as const]));
const counts = (...keys: string[]): KeyTable => Object.fromEntries(keys.map((key) => [key, 'integer >=0' as const]));
const booleans = (...keys: string[]): KeyTable => Object.fromEntries(keys.map((key) => [key, 'boolean' as const]));
const strings = (...keys: string[]): KeyTable => Object.fromEntries(keys.map((key) => [key, 'string' as const]));

/** Keys of ZeRO-3 that DeepSpeed also takes without the prefix. */
export const STAGE3_ALIASES = [
  'prefetch_bucket_size',
  'param_persistence_threshold',
  'model_persistence_threshold',
  'max_live_parameters',
  'max_reuse_distance',
  'gather_16bit_weights_on_model_save',
  'module_granularity_threshold',
  'use_all_reduce_for_fetch_params',
  'allgather_sequential',
] as const;

const stage3Types: KeyTable = {
  ...counts(...STAGE3_ALIASES.slice(0, 5)),
  module_granularity_threshold: 'integer',
  ...booleans('gather_16bit_weights_on_model_save', 'use_all_reduce_for_fetch_params', 'allgather_sequential'),
};

const offload: KeyTable = { ...strings('device', 'nvme_path'), ...counts('buffer_count'), pin_memory: 'boolean' };

const zeroOptimization: KeyTable = {
  stage: 'integer',
  reduce_bucket_size: 'integer >0',
  ...counts('allgather_bucket_size', 'sub_group_size', 'zero_hpz_partition_size'),
  ...booleans('contiguous_gradients', 'reduce_scatter', 'use_multi_rank_bucket_allreduce', 'allgather_partitions', 'overlap_comm'),
  ...booleans('compute_grad_norm', 'load_from_fp32_weights', 'elastic_checkpoint', 'cpu_offload', 'cpu_offload_param'),
  ...booleans('cpu_offload_use_pin_memory', 'ignore_unused_parameters', 'legacy_stage1', 'round_robin_gradients'),
  ...booleans('parameter_alignment', 'zero_quantized_weights', 'zero_quantized_nontrainable_weights', 'zero_quantized_gradients'),
  ...booleans('memory_efficient_linear', 'pipeline_loading_checkpoint', 'override_module_apply', 'log_trace_cache_warnings'),
  ...booleans('enable_sanity_checks', 'save_muon_momentum_buffer_in_memory', 'stage3_gather_fp16_weights_on_model_save'),
  ...stage3Types,
  ...Object.fromEntries(Object.entries(stage3Types).map(([key, type]) => [`stage3_${key}`, type])),
  offload_param: { ...offload, ...counts('buffer_size', 'max_in_cpu') },
  offload_optimizer: {
    ...offload,
    ...booleans('pipeline_read', 'pipeline_write', 'fast_init', 'super_offload'),
    ratio: 'number >=0 <=1',
    cpuadam_cores_perc: 'number >=0 <=1',
  },
  zenflow: 'object',
  leaf_module: { classes: 'list', names: 'list', name_suffixes: 'list' },
};

export const DEEPSPEED_KEYS: KeyTable = {
  ...integers('train_batch_size', 'train_micro_batch_size_per_gpu', 'gradient_accumulation_steps'),
  ...integers('sequence_parallel_size', 'data_parallel_size', 'steps_per_print', 'vocabulary_size'),
  ...booleans('managed_gradient_accumulation', 'zero_allow_untested_optimizer', 'zero_force_ds_cpu_optimizer', 'dump_state'),
  ...booleans('disable_python_gc', 'disable_allgather', 'prescale_gradients', 'wall_clock_breakdown', 'memory_breakdown'),
  ...booleans('use_data_before_expert_parallelism', 'dataloader_drop_last', 'checkpoint_serialization'),
  ...strings('communication_data_type', 'seq_parallel_communication_data_type', 'gradient_allreduce_op', 'log_level'),
  gradient_clipping: 'number',
  gradient_predivide_factor: 'number',
  optimizer: { type: 'string', params: 'object', legacy_fusion: 'boolean' },
  scheduler: { type: 'string', params: 'object' },
  zero_optimization: zeroOptimization,
  bf16: booleans('enabled', 'immediate_grad_update', 'check_grad_overflow', 'bf16_master_weights_and_grads', 'bf16_optimizer_states'),
  bfloat16: booleans('enabled', 'immediate_grad_update', 'check_grad_overflow', 'bf16_master_weights_and_grads', 'bf16_optimizer_states'),
  fp16: {
    ...booleans('enabled', 'auto_cast', 'consecutive_hysteresis', 'fp16_master_weights_and_grads'),
    ...integers('initial_scale_power', 'loss_scale_window', 'hysteresis', 'min_loss_scale'),
    loss_scale: 'number',
  },
  torch_autocast: { enabled: 'boolean', dtype: 'string', lower_precision_safe_modules: 'list' },
  data_types: { ...strings('grad_accum_dtype', 'param_dtype', 'buffer_dtype'), keep_in_fp32_modules: 'any' },
  activation_checkpointing: {
    ...booleans(
      'partition_activations',
      'contiguous_memory_optimization',
      'synchronize_checkpoint_boundary',
      'profile',
      'cpu_checkpointing',
    ),
    number_checkpoints: 'integer',
  },
  comms_logger: { ...booleans('enabled', 'prof_all', 'verbose', 'debug'), prof_ops: 'list' },
  flops_profiler: {
    ...booleans('enabled', 'detailed'),
    ...integers('profile_step', 'module_depth', 'top_modules'),
    recompute_fwd_factor: 'number',
    output_file: 'string',
  },
  tensorboard: { enabled: 'boolean', ...strings('output_path', 'job_name') },
  csv_monitor: { enabled: 'boolean', ...strings('output_path', 'job_name') },
  wandb: { enabled: 'boolean', ...strings('group', 'team', 'project') },
  comet: 'object',
  checkpoint: {
    ...booleans('load_universal', 'use_node_local_storage'),
    tag_validation: 'string',
    parallel_write: { pipeline_stage: 'boolean' },
    writer: 'object',
  },
  timers: { throughput: booleans('enabled', 'synchronized') },
  aio: {
    ...integers('block_size', 'queue_depth', 'intra_op_parallelism'),
    ...booleans('single_submit', 'overlap_events', 'use_gds'),
  },
  autotuning: 'object',
  compile: 'object',
  data_efficiency: 'object',
  datastates_ckpt: 'object',
  expert_parallel: 'object',
  hybrid_engine: {
    ...booleans('enabled', 'release_inference_cache', 'pin_parameters', 'enable_cuda_graph'),
    ...integers('inference_tp_size', 'tp_gather_partition_size'),
    max_out_tokens: 'integer >0',
  },
  pipeline: 'object',
  tensor_parallel: 'object',
  weight_quantization: 'object',
};

/** Keys that DeepSpeed 0.19.8 has removed and refuses (runtime/config.py, `_REMOVED_*_CONFIG_KEYS`). */
export const REMOVED_KEYS: readonly string[] = [
  'nebula',
  'compression_training',
  'amp',
  'quantize_training',
  'sparse_gradients',
  'eigenvalue',
  'sparse_attention',
  'elasticity',
  'graph_harvesting',
  'curriculum_learning',
  'progressive_layer_drop',
];
export const REMOVED_ZERO_KEYS: readonly string[] = ['mics_shard_size', 'mics_hierarchical_params_gather', 'zeropp_loco_param'];
