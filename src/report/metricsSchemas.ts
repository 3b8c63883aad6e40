/** Schemas of the lines of metrics.jsonl. */
import * as z from 'zod';
import type { EvaluationMetrics, PoolMetrics, StepMetrics } from '../bridge/runFolder/metrics.js';
import { count, type Shape } from '../plan/headerSpecs.js';

const bytes = z.number().nonnegative();
const seconds = z.number().nonnegative();

export const stepMetricsSchema = z.strictObject({
  kind: z.literal('stepMetrics'),
  time: z.iso.datetime(),
  step: count,
  loss: z.number().nullable(),
  learningRate: z.number().nullable(),
  gradientNorm: z.number().nonnegative().nullable(),
  seconds,
  tokens: count,
  tokensPerSecond: z.number().nonnegative(),
  lossScale: z.number().positive(),
  skipped: z.boolean(),
  nonFinite: z.array(z.string()),
  memory: z.record(z.string(), z.strictObject({ bytes, plannedBytes: bytes } satisfies Shape<PoolMetrics>)),
  repeated: z.boolean(),
} satisfies Shape<StepMetrics>);

export const evaluationMetricsSchema = z.strictObject({
  kind: z.literal('evaluationMetrics'),
  time: z.iso.datetime(),
  step: count,
  loss: z.number().nullable(),
  perplexity: z.number().nullable(),
  sequences: count,
  tokens: count,
  seconds,
  repeated: z.boolean(),
} satisfies Shape<EvaluationMetrics>);
