/** Batch arithmetic. The ranks of a sequence parallel group share one sequence, so a batch counts replicas, not ranks. */
import { FpdtError } from './errors.js';
import type { JsonObject } from './parseJson.js';

export interface Batch {
  readonly gradientAccumulationSteps: number;
}

/** train_batch_size = train_micro_batch_size_per_gpu * gradient_accumulation_steps * replicas, in sequences; micro-batch size 1. */
export function resolveBatch(config: JsonObject, dataParallelSize: number): Batch {
  const train = positive(config, 'train_batch_size');
  const micro = positive(config, 'train_micro_batch_size_per_gpu') ?? 1;
  const given = positive(config, 'gradient_accumulation_steps');
  if (micro !== 1) {
    throw new FpdtError(`deepspeed.train_micro_batch_size_per_gpu: expected 1, found ${micro}`, {
      code: 'unsupported',
      hint: `a micro-batch is one long sequence; use gradient_accumulation_steps=${micro * (given ?? 1)}`,
    });
  }
  const steps = given ?? (train === undefined ? 1 : train / dataParallelSize);
  if (!Number.isInteger(steps) || steps < 1 || (train !== undefined && train !== steps * dataParallelSize)) {
    throw new FpdtError(
      `deepspeed.train_batch_size must be train_micro_batch_size_per_gpu * gradient_accumulation_steps * replicas: ` +
        `${String(train)} != 1 * ${given ?? '?'} * ${dataParallelSize}`,
      {
        code: 'batch-mismatch',
        hint: `train_batch_size=${(given ?? Math.max(1, Math.round(steps))) * dataParallelSize} works, or leave it out`,
      },
    );
  }
  return { gradientAccumulationSteps: steps };
}

function positive(config: JsonObject, key: string): number | undefined {
  const value = config[key] as number | undefined;
  if (value === undefined || value >= 1) return value;
  throw new FpdtError(`deepspeed.${key}: expected at least 1, found ${value}`, { code: 'invalid-value' });
}
