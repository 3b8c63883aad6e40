/** Batch arithmetic. The ranks of a sequence parallel group share one sequence, so a batch counts replicas, not ranks. */
import type { DeepSpeedReport, Problem } from './deepspeedReport.js';
import type { JsonObject } from './parseJson.js';

export interface Batch {
  /** Micro-steps of one sequence between two updates. */
  readonly gradientAccumulationSteps: number;
}

/**
 * train_batch_size = train_micro_batch_size_per_gpu * gradient_accumulation_steps * replicas, in sequences; what is left open follows as
 * DeepSpeed derives it (`_set_batch_related_parameters`). A micro-batch of m sequences is run as m micro-steps of one: the loss is the mean
 * over all target tokens of the step, however they are shared out, so loss and gradients are the same.
 */
export function resolveBatch(config: JsonObject, dataParallelSize: number, report: DeepSpeedReport): Batch {
  const { train, micro, steps } = given(config);
  const outside = outOfRange(config);
  report.add(...outside);
  const total =
    micro !== undefined || train === undefined
      ? (micro ?? 1) * (steps ?? sharesOf(train, micro ?? 1, dataParallelSize))
      : train / dataParallelSize;
  const fits =
    Number.isInteger(total) && total >= 1 && total % (steps ?? 1) === 0 && (train === undefined || train === total * dataParallelSize);
  if (!fits && outside.length === 0) report.add(mismatch(config, dataParallelSize));
  if (micro !== undefined && micro > 1) {
    report.remarks.push(
      `deepspeed.train_micro_batch_size_per_gpu=${micro} is run as ${micro} micro-steps of one sequence each, ${total} of them a step: the same mean over all target tokens`,
    );
  }
  return { gradientAccumulationSteps: fits && outside.length === 0 ? total : 1 };
}

/** The replicas that a batch given in full asks for, where the ranks can be so many. */
export function replicasOf(config: JsonObject, numRanks: number): number | undefined {
  const { train, micro, steps } = given(config);
  if (train === undefined || micro === undefined || steps === undefined) return undefined;
  const replicas = train / (micro * steps);
  return Number.isInteger(replicas) && replicas >= 1 && numRanks % replicas === 0 ? replicas : undefined;
}

/** DeepSpeed's own division: what it leaves over is a mismatch. */
function sharesOf(train: number | undefined, micro: number, replicas: number): number {
  return train === undefined ? 1 : Math.floor(train / (micro * replicas));
}

interface Given {
  readonly train: number | undefined;
  readonly micro: number | undefined;
  readonly steps: number | undefined;
}

function given(config: JsonObject): Given {
  const [train, micro, steps] = KEYS.map((key) => config[key] as number | undefined);
  return { train, micro, steps };
}

const KEYS = ['train_batch_size', 'train_micro_batch_size_per_gpu', 'gradient_accumulation_steps'] as const;

/** Of a step; what DeepSpeed itself could still count in 32 bits. */
const MOST_SEQUENCES = 2 ** 31 - 1;

function outOfRange(config: JsonObject): readonly Problem[] {
  const { micro = 1, steps = 1 } = given(config);
  const found = KEYS.flatMap((path) => {
    const value = config[path] as number | undefined;
    if (value === undefined) return [];
    if (value < 1) return [problem(path, `: expected at least 1, found ${value}`, 'give 1 or more, or leave it out')];
    return value > MOST_SEQUENCES ? [tooMany(path, value)] : [];
  });
  return found.length === 0 && micro * steps > MOST_SEQUENCES ? [tooMany('gradient_accumulation_steps', steps)] : found;
}

function tooMany(path: string, found: number): Problem {
  return problem(path, `: a step has at most ${MOST_SEQUENCES} sequences, found ${found}`, 'give fewer, or leave it out');
}

function problem(path: string, text: string, hint: string): Problem {
  return { path, text, code: 'invalid-value', hint };
}

function mismatch(config: JsonObject, replicas: number): Problem {
  const { train, micro, steps } = given(config);
  const each = Math.max(1, micro ?? 1) * Math.max(1, steps ?? 1);
  const nearest = Math.max(1, Math.round((train ?? 1) / (each * replicas))) * each * replicas;
  const works = micro !== undefined && steps !== undefined ? each * replicas : nearest;
  return {
    path: 'train_batch_size',
    text: ` must be train_micro_batch_size_per_gpu * gradient_accumulation_steps * replicas: ${train ?? '?'} != ${micro ?? '?'} * ${steps ?? '?'} * ${replicas}`,
    code: 'batch-mismatch',
    hint: `train_batch_size=${works} works, or leave it out`,
  };
}
