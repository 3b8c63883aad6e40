/** Rows that others published (published.json) held against the models of their programs. Nothing is fitted to a row. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { planReleased, type ReleasedPlan } from '../src/index.js';
import { PACKAGE_ROOT } from '../src/package.js';
import { CHECKPOINTS, PLAN_ONLY_POLICIES } from '../src/spec/releasedPrograms.js';

const GIB = 1024 ** 3;
/** Shorter rows are printed, and no part of the errors. */
export const JUDGED_TOKENS = 128_000;
export const MOST_MEAN_ERROR = 0.1;
export const MOST_ERROR = 0.25;

const rowSchema = z.strictObject({
  source: z.string(),
  policy: z.enum(PLAN_ONLY_POLICIES),
  model: z.string(),
  gpus: z.int(),
  gpu: z.string(),
  hostBytes: z.int(),
  released: z
    .strictObject({
      checkpoints: z.enum(CHECKPOINTS),
      chunkedAttention: z.boolean(),
      tiledLoss: z.boolean(),
      tiledMlp: z.boolean(),
      offloadWeights: z.boolean(),
    })
    .partial()
    .optional(),
  sequenceParallelSize: z.int().optional(),
  zeroStage: z.int(),
  offloadOptimizer: z.boolean().optional(),
  attention: z.string().optional(),
  seqLen: z.int(),
  isMaximum: z.literal(true).optional(),
  stepSeconds: z.number().optional(),
  memoryGiB: z.number().optional(),
  memoryOf: z.enum(['device', 'torch']).optional(),
  mfuPercent: z.number().optional(),
  note: z.string().optional(),
});
const tableSchema = z.strictObject({
  kind: z.literal('publishedRows'),
  about: z.string(),
  models: z.record(z.string(), z.union([z.string(), z.looseObject({})])),
  rows: z.array(rowSchema),
});

export type PublishedRow = z.infer<typeof rowSchema>;

export interface ComparedRow {
  readonly row: PublishedRow;
  readonly stepSeconds: number;
  /** Predicted over published, less one; null where no time was published. */
  readonly error: number | null;
  /** Whether the error counts. */
  readonly judged: boolean;
  readonly fits: boolean;
  readonly fitsTwice: boolean;
  /** Of a maximum: fits, and not twice as long; null for every other row. */
  readonly fitsRight: boolean | null;
  /** As the row counts it: on the device, or without context and communicators. */
  readonly memoryGiB: number;
  readonly mfu: ReleasedPlan['prediction']['mfu'];
  readonly terms: ReleasedPlan['prediction']['terms'];
}

export interface Published {
  readonly rows: readonly ComparedRow[];
  readonly numJudged: number;
  readonly meanError: number;
  readonly worstError: number;
  readonly numMaxima: number;
  readonly numWrongFits: number;
  /** Mean of |predicted / printed - 1| of the long rows with an MFU, in each convention. */
  readonly mfuErrors: Readonly<Record<keyof ReleasedPlan['prediction']['mfu'], number>>;
}

export function comparePublished(): Published {
  const { models, rows } = tableSchema.parse(JSON.parse(readFileSync(join(PACKAGE_ROOT, 'bench', 'published.json'), 'utf8')));
  const compared = rows.map((row) => compareRow(row, models[row.model] ?? row.model));
  const errors = compared.filter(({ judged }) => judged).map(({ error }) => Math.abs(error ?? 0));
  const maxima = compared.filter(({ fitsRight }) => fitsRight !== null);
  return {
    rows: compared,
    numJudged: errors.length,
    meanError: mean(errors),
    worstError: Math.max(...errors),
    numMaxima: maxima.length,
    numWrongFits: maxima.filter(({ fitsRight }) => fitsRight === false).length,
    mfuErrors: mfuErrors(compared),
  };
}

function compareRow(row: PublishedRow, model: string | Readonly<Record<string, unknown>>): ComparedRow {
  const planAt = (seqLen: number): ReleasedPlan => planReleased(requestOf(row, model, seqLen));
  const plan = planAt(row.seqLen);
  const fitsTwice = planAt(2 * row.seqLen).fits;
  const { stepSeconds, mfu, terms } = plan.prediction;
  const error = row.stepSeconds === undefined ? null : stepSeconds / row.stepSeconds - 1;
  const [device] = plan.memory.pools;
  const outside = row.memoryOf === 'torch' ? plan.cluster.overheads.reduce((sum, { bytes }) => sum + bytes, 0) : 0;
  return {
    row,
    stepSeconds,
    error,
    judged: error !== null && row.seqLen >= JUDGED_TOKENS,
    fits: plan.fits,
    fitsTwice,
    fitsRight: row.isMaximum === true ? plan.fits && !fitsTwice : null,
    memoryGiB: ((device?.peakBytes ?? 0) - outside) / GIB,
    mfu,
    terms,
  };
}

function requestOf(
  row: PublishedRow,
  model: string | Readonly<Record<string, unknown>>,
  seqLen: number,
): Parameters<typeof planReleased>[0] {
  const { gpus, gpu, hostBytes, policy, released, sequenceParallelSize, attention, zeroStage, offloadOptimizer } = row;
  return {
    model: typeof model === 'string' ? join(PACKAGE_ROOT, model) : model,
    cluster: { gpus, gpu, hostBytes },
    run: { seqLen, policy, released, sequenceParallelSize, attention },
    deepspeed: {
      train_micro_batch_size_per_gpu: 1,
      bf16: { enabled: true },
      zero_optimization: { stage: zeroStage, ...(offloadOptimizer === true ? { offload_optimizer: { device: 'cpu' } } : {}) },
    },
  };
}

function mfuErrors(rows: readonly ComparedRow[]): Published['mfuErrors'] {
  const long = rows.filter(({ row }) => row.mfuPercent !== undefined && row.seqLen >= JUDGED_TOKENS);
  const of = (name: keyof ComparedRow['mfu']): number =>
    mean(long.map(({ row, mfu }) => Math.abs((100 * mfu[name]) / (row.mfuPercent ?? 1) - 1)));
  return {
    causalModel: of('causalModel'),
    causalHardware: of('causalHardware'),
    fullModel: of('fullModel'),
    fullHardware: of('fullHardware'),
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
