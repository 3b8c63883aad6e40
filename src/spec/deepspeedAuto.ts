/** `"auto"` values, filled as the Hugging Face integration fills them (transformers/integrations/deepspeed.py). */
import { type HfArguments, hfArguments } from './hfArguments.js';
import type { DeepSpeedReport } from './deepspeedReport.js';
import { isObject, type JsonObject, valueIn } from './parseJson.js';
import type { ModelDtype } from './dtype.js';

export interface AutoFacts {
  readonly hiddenSize: number;
  readonly dtype: ModelDtype;
  readonly numSteps: number;
}

/** Batch sizes are left for resolveBatch: absent there means to be derived. */
const DERIVED = ['train_batch_size', 'train_micro_batch_size_per_gpu', 'gradient_accumulation_steps'];
const DERIVED_GROUPS = ['sequence_parallel_size', 'data_parallel_size'];
/** What the integration fills whatever ZeRO's stage is, and for stage 3 alone. */
const FILLED = [
  'gradient_clipping',
  ...['lr', 'betas', 'eps', 'weight_decay'].map((name) => `optimizer.params.${name}`),
  ...['warmup_min_lr', 'warmup_max_lr', 'warmup_num_steps', 'total_num_steps'].map((name) => `scheduler.params.${name}`),
  'bf16.enabled',
  'bfloat16.enabled',
  'fp16.enabled',
  'zero_optimization.reduce_bucket_size',
];
const FILLED_AT_STAGE_3 = ['zero_optimization.stage3_prefetch_bucket_size', 'zero_optimization.stage3_param_persistence_threshold'];

/** Whether "auto" at a path of this config gets a value. */
export function isFilled(config: JsonObject): (path: string) => boolean {
  const stage = Number(valueIn(config, ['zero_optimization', 'stage']));
  const paths = new Set([...DERIVED, ...DERIVED_GROUPS, ...FILLED, ...(stage === 3 ? FILLED_AT_STAGE_3 : [])]);
  return (path) => paths.has(path);
}

export function resolveAuto(config: JsonObject, facts: AutoFacts, report: DeepSpeedReport): JsonObject {
  const values = autoValues(hfArguments(config), facts);
  const filled: string[] = [];
  const derived: string[] = [];
  const resolved = walk(config, '', (path) => {
    if (Object.hasOwn(values, path)) filled.push(`${path}=${JSON.stringify(values[path])}`);
    else if (DERIVED.includes(path) || DERIVED_GROUPS.includes(path)) derived.push(path);
    return values[path];
  }) as JsonObject;
  if (filled.length > 0) report.remarks.push(`deepspeed: "auto" is what Hugging Face's Trainer fills: ${filled.join(', ')}`);
  if (derived.length > 0) report.remarks.push(`deepspeed: "auto" follows from ranks and batch: ${derived.join(', ')}`);
  return resolved;
}

function autoValues(args: HfArguments, { hiddenSize, dtype, numSteps }: AutoFacts): Readonly<Record<string, unknown>> {
  return {
    gradient_clipping: args.maxGradNorm,
    'optimizer.params.lr': args.learningRate,
    'optimizer.params.betas': args.betas,
    'optimizer.params.eps': args.eps,
    'optimizer.params.weight_decay': args.weightDecay,
    'scheduler.params.warmup_min_lr': 0,
    'scheduler.params.warmup_max_lr': args.learningRate,
    // DeepSpeed refuses 0.
    'scheduler.params.warmup_num_steps': 1,
    'scheduler.params.total_num_steps': numSteps,
    'bf16.enabled': dtype === 'bfloat16',
    'fp16.enabled': dtype === 'float16',
    'zero_optimization.reduce_bucket_size': hiddenSize * hiddenSize,
    'zero_optimization.stage3_prefetch_bucket_size': Math.trunc(0.9 * hiddenSize * hiddenSize),
    'zero_optimization.stage3_param_persistence_threshold': 10 * hiddenSize,
  };
}

/** Constructor parameters that nothing fills are left out: their own defaults hold. */
function walk(value: unknown, path: string, resolve: (path: string) => unknown): unknown {
  if (value === 'auto' && path !== 'data_types.keep_in_fp32_modules') return resolve(path);
  if (!isObject(value)) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, walk(item, path === '' ? key : `${path}.${key}`, resolve)] as const);
  return Object.fromEntries(entries.filter(([, item]) => item !== undefined));
}
