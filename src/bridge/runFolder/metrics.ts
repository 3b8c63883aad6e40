/** Lines of metrics.jsonl: one for every optimizer step and every evaluation. */
import type { MemoryLedger } from '../../memory/ledger.js';
import { isObject } from '../../spec/parseJson.js';
import type { EvaluationResult } from '../evaluations.js';
import type { StepResult } from '../runResult.js';

/** Peak of a pool in the step, of the rank with most, and what the plan says of it. */
export interface PoolMetrics {
  readonly bytes: number;
  readonly plannedBytes: number;
}

export interface StepMetrics {
  readonly kind: 'stepMetrics';
  /** When the step was over on all ranks, ISO 8601. */
  readonly time: string;
  /** From 0. */
  readonly step: number;
  readonly loss: number | null;
  readonly learningRate: number | null;
  readonly gradientNorm: number | null;
  /** Of the slowest rank. */
  readonly seconds: number;
  /** Target tokens of all ranks together. */
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly lossScale: number;
  readonly skipped: boolean;
  /** Names of what was NaN or infinite, and is null here. */
  readonly nonFinite: readonly string[];
  /** By pool; empty in a step whose memory was not measured. */
  readonly memory: Readonly<Record<string, PoolMetrics>>;
  /** The step is in an earlier line too: what came after the state that the run went on from was run again. */
  readonly repeated: boolean;
}

export function stepMetrics(step: StepResult, ledger: MemoryLedger, time: string, repeated: boolean): StepMetrics {
  const { seconds, tokens } = step;
  return {
    kind: 'stepMetrics',
    time,
    step: step.step,
    loss: step.loss,
    learningRate: step.learningRate,
    gradientNorm: step.gradientNorm,
    seconds,
    tokens,
    tokensPerSecond: seconds > 0 ? tokens / seconds : 0,
    lossScale: step.lossScale,
    skipped: step.skipped,
    nonFinite: step.nonFinite,
    memory: step.memoryMeasured ? memoryOf(step, ledger) : {},
    repeated,
  };
}

export interface EvaluationMetrics extends EvaluationResult {
  readonly kind: 'evaluationMetrics';
  readonly time: string;
  /** An earlier line has an evaluation after as many steps. */
  readonly repeated: boolean;
}

export function evaluationMetrics(evaluation: EvaluationResult, time: string, repeated: boolean): EvaluationMetrics {
  return { kind: 'evaluationMetrics', time, ...evaluation, repeated };
}

function memoryOf({ poolBytes }: StepResult, { pools }: MemoryLedger): StepMetrics['memory'] {
  return Object.fromEntries(pools.map(({ pool, peakBytes }) => [pool, { bytes: poolBytes[pool] ?? 0, plannedBytes: peakBytes }]));
}

/** The greatest step of the lines of a kind, -1 where there is none. */
export function lastStepOf(text: string, kind: Metrics['kind']): number {
  return text.split('\n').reduce((last, line) => Math.max(last, stepOf(line, kind)), -1);
}

export type Metrics = StepMetrics | EvaluationMetrics;

/** Lines that are no metrics are let be. */
function stepOf(line: string, kind: Metrics['kind']): number {
  try {
    const value: unknown = JSON.parse(line);
    return isObject(value) && value['kind'] === kind && typeof value['step'] === 'number' ? value['step'] : -1;
  } catch {
    return -1;
  }
}
