/** What DeepSpeed can do and a plan cannot account for is refused by name, never ignored. */
import { FpdtError } from './errors.js';
import type { JsonObject } from './parseJson.js';

interface Refusal {
  readonly path: string;
  /** True for values that are refused. */
  readonly when: (value: unknown) => boolean;
  readonly hint: string;
}

const on = (value: unknown): boolean => value === true;
const given = (value: unknown): boolean => value !== undefined && value !== null;
const not =
  (...allowed: readonly unknown[]) =>
  (value: unknown): boolean =>
    value !== undefined && !allowed.includes(value);
/** DeepSpeed knows three, in any case (`get_communication_data_type`, runtime/config.py). */
const notCommunicated = (value: unknown): boolean => given(value) && !/^(fp32|bf16|fp16)$/i.test(String(value));

const REFUSALS: readonly Refusal[] = [
  { path: 'zero_optimization.stage', when: not(0, 1, 2, 3), hint: 'ZeRO stages are 0, 1, 2 and 3' },
  { path: 'zero_optimization.offload_param.device', when: not('none'), hint: 'remove offload_param; ZeRO-3 already shards the weights' },
  { path: 'zero_optimization.offload_optimizer.device', when: not('none', 'cpu'), hint: "use device 'cpu' or 'none'" },
  { path: 'zero_optimization.offload_optimizer.ratio', when: not(1), hint: 'use ratio 1.0' },
  { path: 'zero_optimization.offload_optimizer.super_offload', when: on, hint: 'set super_offload to false' },
  { path: 'zero_optimization.zenflow', when: given, hint: 'remove the zenflow section' },
  { path: 'zero_optimization.cpu_offload', when: on, hint: "write offload_optimizer: {device: 'cpu'}" },
  { path: 'zero_optimization.cpu_offload_param', when: on, hint: 'remove it' },
  { path: 'zero_optimization.legacy_stage1', when: on, hint: 'set legacy_stage1 to false' },
  { path: 'zero_optimization.zero_hpz_partition_size', when: not(0, 1), hint: 'set zero_hpz_partition_size to 1' },
  { path: 'zero_optimization.zero_quantized_weights', when: on, hint: 'gradients would not equal the unsharded ones; set it to false' },
  { path: 'zero_optimization.zero_quantized_nontrainable_weights', when: on, hint: 'set it to false' },
  { path: 'zero_optimization.zero_quantized_gradients', when: on, hint: 'gradients would not equal the unsharded ones; set it to false' },
  { path: 'bf16.bf16_master_weights_and_grads', when: on, hint: 'set it to false: memory is planned for fp32 master weights' },
  { path: 'bf16.bf16_optimizer_states', when: on, hint: 'set it to false: memory is planned for fp32 Adam states' },
  { path: 'fp16.fp16_master_weights_and_grads', when: on, hint: 'set it to false: memory is planned for fp32 master weights' },
  { path: 'fp16.auto_cast', when: on, hint: 'set it to false: inputs are token ids, which no cast is for' },
  { path: 'torch_autocast.enabled', when: on, hint: 'use bf16.enabled or fp16.enabled' },
  { path: 'data_types.param_dtype', when: given, hint: 'remove it: the dtype is that of the run' },
  { path: 'gradient_allreduce_op', when: not('mean'), hint: 'the loss scale assumes the mean; remove it' },
  { path: 'communication_data_type', when: notCommunicated, hint: "use 'fp32', 'bf16' or 'fp16', or remove it" },
  { path: 'seq_parallel_communication_data_type', when: notCommunicated, hint: 'remove it' },
  { path: 'prescale_gradients', when: on, hint: 'set prescale_gradients to false' },
  { path: 'gradient_predivide_factor', when: not(1), hint: 'set gradient_predivide_factor to 1' },
  { path: 'managed_gradient_accumulation', when: not(true), hint: 'set managed_gradient_accumulation to true' },
  { path: 'compile.deepcompile', when: on, hint: 'set compile.deepcompile to false' },
  { path: 'hybrid_engine.enabled', when: on, hint: 'remove hybrid_engine' },
  { path: 'autotuning.enabled', when: on, hint: 'remove autotuning: the planner chooses' },
  { path: 'data_efficiency.enabled', when: on, hint: 'remove data_efficiency' },
  { path: 'expert_parallel.enabled', when: on, hint: 'remove expert_parallel' },
  { path: 'tensor_parallel', when: given, hint: 'remove tensor_parallel: sequence parallelism shards the heads' },
  { path: 'pipeline', when: given, hint: 'remove pipeline' },
  { path: 'weight_quantization', when: given, hint: 'remove weight_quantization' },
  { path: 'optimizer.type', when: (value) => given(value) && !/^adamw?$/i.test(String(value)), hint: "use 'Adam' or 'AdamW'" },
];

export function refuseUnsupportedDeepSpeed(config: JsonObject): void {
  refuseOffloadWithoutZero(config);
  for (const { path, when, hint } of REFUSALS) {
    const value = path.split('.').reduce<unknown>((at, key) => (at as JsonObject | null | undefined)?.[key], config);
    if (!when(value)) continue;
    throw new FpdtError(`deepspeed.${path}: ${JSON.stringify(value)} is not supported`, { code: 'unsupported', hint, details: { path } });
  }
}

/** DeepSpeed offloads the states that ZeRO shards; at stage 0 it would ignore the section. */
function refuseOffloadWithoutZero(config: JsonObject): void {
  const { stage = 0, offload_optimizer: offload } = (config.zero_optimization ?? {}) as JsonObject;
  if (stage !== 0 || (offload as JsonObject | null | undefined)?.device !== 'cpu') return;
  throw new FpdtError('deepspeed.zero_optimization.offload_optimizer: ZeRO stage 0 has nothing to offload', {
    code: 'unsupported',
    hint: 'use stage 1, 2 or 3',
  });
}
