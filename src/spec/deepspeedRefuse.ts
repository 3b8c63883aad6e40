/** What DeepSpeed can do and a plan cannot account for is refused by name, never ignored. */
import { constructedProblems, type ConstructedFacts } from './deepspeedConstructed.js';
import type { Problem } from './deepspeedReport.js';
import { type JsonObject, valueIn } from './parseJson.js';

interface Refusal {
  readonly path: string;
  /** True for values that are refused. */
  readonly when: (value: unknown) => boolean;
  readonly hint: string;
}

/** DeepSpeed keeps null, and fails at the first step. */
const isNull = (value: unknown): boolean => value === null;
const on = (value: unknown): boolean => value === true;
const given = (value: unknown): boolean => value !== undefined && value !== null;
const not =
  (...allowed: readonly unknown[]) =>
  (value: unknown): boolean =>
    value !== undefined && !allowed.includes(value);
/** DeepSpeed knows three, in any case (`get_communication_data_type`, runtime/config.py). */
const notCommunicated = (value: unknown): boolean => given(value) && !/^(fp32|bf16|fp16)$/i.test(String(value));

const REFUSALS: readonly Refusal[] = [
  { path: 'zero_optimization.offload_optimizer.ratio', when: not(1), hint: 'use ratio 1.0' },
  { path: 'zero_optimization.offload_optimizer.super_offload', when: on, hint: 'set super_offload to false' },
  { path: 'zero_optimization.zenflow', when: given, hint: 'remove the zenflow section' },
  { path: 'zero_optimization.legacy_stage1', when: on, hint: 'set legacy_stage1 to false' },
  { path: 'zero_optimization.zero_quantized_weights', when: on, hint: 'gradients would not equal the unsharded ones; set it to false' },
  { path: 'zero_optimization.zero_quantized_nontrainable_weights', when: on, hint: 'set it to false' },
  { path: 'zero_optimization.zero_quantized_gradients', when: on, hint: 'gradients would not equal the unsharded ones; set it to false' },
  { path: 'bf16.bf16_master_weights_and_grads', when: on, hint: 'set it to false: memory is planned for fp32 master weights' },
  { path: 'bf16.bf16_optimizer_states', when: on, hint: 'set it to false: memory is planned for fp32 Adam states' },
  { path: 'fp16.fp16_master_weights_and_grads', when: on, hint: 'set it to false: memory is planned for fp32 master weights' },
  { path: 'torch_autocast.enabled', when: on, hint: 'use bf16.enabled or fp16.enabled' },
  { path: 'data_types.param_dtype', when: given, hint: 'remove it: the dtype is that of the run' },
  { path: 'gradient_allreduce_op', when: not('mean'), hint: 'the loss scale assumes the mean; remove it' },
  { path: 'communication_data_type', when: notCommunicated, hint: "use 'fp32', 'bf16' or 'fp16', or remove it" },
  { path: 'seq_parallel_communication_data_type', when: notCommunicated, hint: 'remove it' },
  { path: 'gradient_clipping', when: isNull, hint: 'write 0 for none, or leave it out for 1.0' },
  { path: 'managed_gradient_accumulation', when: not(true), hint: 'set managed_gradient_accumulation to true' },
  { path: 'compile.deepcompile', when: on, hint: 'set compile.deepcompile to false' },
  { path: 'hybrid_engine.enabled', when: on, hint: 'remove hybrid_engine' },
  { path: 'autotuning.enabled', when: on, hint: 'remove autotuning: the planner chooses' },
  { path: 'data_efficiency.enabled', when: on, hint: 'remove data_efficiency' },
  { path: 'expert_parallel.enabled', when: on, hint: 'remove expert_parallel' },
  ...['autotp_size', 'tensor_parallel.tp_size', 'tp.tp_size'].map((size) => ({
    path: `tensor_parallel.${size}`,
    when: (value: unknown) => typeof value === 'number' && value > 1,
    hint: 'remove tensor_parallel: sequence parallelism shards the heads',
  })),
  { path: 'pipeline', when: given, hint: 'remove pipeline' },
  { path: 'weight_quantization', when: given, hint: 'remove weight_quantization' },
];

/** Of a resolved config, all that is refused. */
export function unsupportedProblems(config: JsonObject, facts: ConstructedFacts): readonly Problem[] {
  const found = REFUSALS.flatMap(({ path, when, hint }): readonly Problem[] => {
    const value = valueIn(config, path.split('.'));
    if (!when(value)) return [];
    return [{ path, text: `: ${JSON.stringify(value)} is not supported`, code: 'unsupported', hint, details: { path } }];
  });
  return [...found, ...averagingProblems(config, facts), ...sizeProblems(config), ...constructedProblems(config, facts)];
}

/**
 * Gradients are divided before the ranks' sum, or partly so. ZeRO-2 and 3 refuse that while they reduce by scattering, which ZeRO-1 does
 * without either (`__init__` of zero/stage_1_and_2.py and zero/stage3.py).
 */
function averagingProblems(config: JsonObject, { stage, numRanks }: ConstructedFacts): readonly Problem[] {
  const { prescale_gradients: isBefore, gradient_predivide_factor: factor = 1 } = config;
  const scatters = valueIn(config, ['zero_optimization', 'reduce_scatter']) !== false;
  const refused = (path: string, why: string, hint: string): Problem => ({
    path,
    text: `: ${JSON.stringify(config[path])} is not supported${why}`,
    code: 'unsupported',
    hint,
    details: { path },
  });
  const scattered = `: DeepSpeed refuses it at ZeRO stage ${stage} with reduce_scatter`;
  const problems = isBefore === true && stage >= 2 && scatters ? [refused('prescale_gradients', scattered, 'set it to false')] : [];
  if (factor === 1) return problems;
  const ofFactor = (why: string): readonly Problem[] => [...problems, refused('gradient_predivide_factor', why, 'set it to 1')];
  if (typeof factor !== 'number' || !(factor > 0)) return ofFactor(': expected a number above 0');
  if (stage >= 2 && scatters) return ofFactor(scattered);
  if (stage === 3) return ofFactor(' at ZeRO stage 3, where DeepSpeed makes copies for it');
  if (stage > 0 && !scatters && factor === numRanks)
    return ofFactor(': DeepSpeed does not multiply by it again where it is the number of ranks');
  return problems;
}

/** Numbers of sections that DeepSpeed does not check, and the least that makes sense. */
const LEAST: Readonly<Record<string, number>> = {
  gradient_clipping: 0,
  steps_per_print: 1,
  sequence_parallel_size: 1,
  data_parallel_size: 1,
  'aio.block_size': 1,
  'aio.queue_depth': 1,
  'aio.intra_op_parallelism': 1,
  'flops_profiler.profile_step': 1,
  'activation_checkpointing.number_checkpoints': 1,
  'checkpoint.writer.io_buffer_size': 1,
};

function sizeProblems(config: JsonObject): readonly Problem[] {
  return Object.entries(LEAST).flatMap(([path, least]): readonly Problem[] => {
    const value = valueIn(config, path.split('.'));
    if (typeof value !== 'number' || value >= least) return [];
    return [
      { path, text: `: expected at least ${least}, found ${value}`, code: 'invalid-value', hint: `give ${least} or more, or leave it out` },
    ];
  });
}
