/** `"auto"` values, resolved as the Hugging Face integration does (transformers/integrations/deepspeed.py). */
import type { ModelDtype } from './dtype.js';
import { FpdtError } from './errors.js';
import { isObject, type JsonObject } from './parseJson.js';

export interface AutoFacts {
  readonly hiddenSize: number;
  readonly dtype: ModelDtype;
  readonly numSteps: number;
}

/** Batch sizes are left for resolveBatch: absent there means to be derived. */
const DERIVED = ['train_batch_size', 'train_micro_batch_size_per_gpu', 'gradient_accumulation_steps'];
const DERIVED_GROUPS = ['sequence_parallel_size', 'data_parallel_size'];

export function resolveAuto(config: JsonObject, facts: AutoFacts): JsonObject {
  const values = autoValues(config, facts);
  return walk(config, '', (path) => {
    if (DERIVED.includes(path) || DERIVED_GROUPS.includes(path)) return undefined;
    if (Object.hasOwn(values, path)) return values[path];
    throw new FpdtError(`deepspeed.${path}: 'auto' has no value to be resolved to`, {
      code: 'unresolved-auto',
      hint: `write the value; 'auto' works for ${[...DERIVED, ...Object.keys(values)].join(', ')}`,
    });
  }) as JsonObject;
}

/** Learning rate and Adam constants are those of transformers' TrainingArguments. */
function autoValues(config: JsonObject, { hiddenSize, dtype, numSteps }: AutoFacts): Readonly<Record<string, unknown>> {
  const given = params(config, 'optimizer').lr;
  const lr = typeof given === 'number' ? given : 5e-5;
  return {
    gradient_clipping: 1.0,
    'optimizer.params.lr': lr,
    'optimizer.params.betas': [0.9, 0.999],
    'optimizer.params.eps': 1e-8,
    'optimizer.params.weight_decay': 0,
    'scheduler.params.warmup_min_lr': 0,
    'scheduler.params.warmup_max_lr': lr,
    'scheduler.params.warmup_num_steps': 0,
    'scheduler.params.total_num_steps': numSteps,
    'bf16.enabled': dtype === 'bfloat16',
    'fp16.enabled': dtype === 'float16',
    'zero_optimization.reduce_bucket_size': hiddenSize * hiddenSize,
    'zero_optimization.stage3_prefetch_bucket_size': Math.trunc(0.9 * hiddenSize * hiddenSize),
    'zero_optimization.stage3_param_persistence_threshold': 10 * hiddenSize,
  };
}

function params(config: JsonObject, section: string): JsonObject {
  return (((config[section] ?? {}) as JsonObject).params ?? {}) as JsonObject;
}

function walk(value: unknown, path: string, resolve: (path: string) => unknown): unknown {
  if (value === 'auto' && path !== 'data_types.keep_in_fp32_modules') return resolve(path);
  if (!isObject(value)) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, walk(item, path === '' ? key : `${path}.${key}`, resolve)] as const);
  return Object.fromEntries(entries.filter(([, item]) => item !== undefined));
}
