/** Schemas of what the commands of planning print with --json, and of what a run's folder holds; exported as schemas/cli, which docs/cli.md is about. */
import * as z from 'zod';
import { OP_KIND_NAMES } from '../catalog/ops/index.js';
import {
  EVALUATION_INSTANTS,
  INSTANTS,
  LOAD,
  type MemoryInstant,
  type MemoryItem,
  type MemoryLedger,
  type PoolLedger,
} from '../memory/ledger.js';
import type { PoolMisfit } from '../memory/misfit.js';
import type { PlanCost } from '../plan/cost.js';
import { PLAN_VERSION } from '../plan/executionPlan.js';
import { kernelsSchema, linkSchema, poolSchema, tableSchema } from '../plan/header.js';
import { count, foreignObject, modelSchema, positive, runSchema, type Shape, strategySchema } from '../plan/headerSpecs.js';
import type { EvaluationPrediction, KindSeconds, Mfu, Prediction, SectionPrediction } from '../predict/prediction.js';
import { clusterSchema, RATE_NAMES, RATE_ORIGINS } from '../spec/clusterSpec.js';
import { ALL_POLICIES, CHECKPOINTS, PLAN_ONLY_POLICIES, type ReleasedOptions } from '../spec/releasedPrograms.js';
import type { PolicyComparison, PolicyRow, PolicyStep, PoolUse } from '../strategy/comparePolicies.js';
import type { MaxSeqLen } from '../strategy/limits/maxSeqLen.js';
import type { MinGpus, TooFewGpus } from '../strategy/limits/minGpus.js';
import type { MinHost } from '../strategy/limits/minHost.js';
import type { Bound } from '../strategy/limits/probe.js';
import type { TimeTerm } from '../strategy/released/costs.js';
import type { MaxReleasedSeqLen } from '../strategy/released/limits.js';
import type { ReleasedPlan, ReleasedPrediction } from '../strategy/released/releasedPlan.js';
import { choiceSchema } from './choiceSchema.js';
import type { LimitJson } from './limitText.js';
import { doctorSchema, setupSchema } from './machineSchemas.js';
import { evaluationMetricsSchema, stepMetricsSchema } from './metricsSchemas.js';
import type { NumberChange, PlanDiff, PoolChange, SettingChange } from './planDiff.js';
import type { PlanJson } from './planJson.js';
import { type CheckedRequirement, OPERATORS } from './requirements.js';

/** Overheads of a cluster file may be fractions of a byte. */
const bytes = z.number().nonnegative();
const seconds = z.number().nonnegative();
const instantName = z.enum([...INSTANTS, ...EVALUATION_INSTANTS, LOAD]);
const option = z.exactOptional;

const itemSchema = z.strictObject({
  name: z.string(),
  bytes,
  provenance: z.enum(['exact', 'derived', 'measured', 'assumed']),
  note: z.string(),
} satisfies Shape<MemoryItem>);

const instantSchema = z.strictObject({
  name: instantName,
  items: z.array(itemSchema),
  totalBytes: bytes,
} satisfies Shape<MemoryInstant>);

const poolLedgerSchema = z.strictObject({
  pool: z.string(),
  kind: z.enum(['device', 'pinned', 'file']),
  capacityBytes: bytes,
  reserveBytes: bytes,
  persistent: z.array(itemSchema),
  instants: z.array(instantSchema),
  load: instantSchema,
  peakBytes: bytes,
  peakInstant: instantName,
  fits: z.boolean(),
} satisfies Shape<PoolLedger>);

const ledgerSchema = z.strictObject({
  kind: z.literal('memoryLedger'),
  fits: z.boolean(),
  pools: z.array(poolLedgerSchema),
} satisfies Shape<MemoryLedger>);

const mfuSchema = z.strictObject({
  causalModel: z.number(),
  causalHardware: z.number(),
  fullModel: z.number(),
  fullHardware: z.number(),
} satisfies Shape<Mfu>);

const predictionSchema = z.strictObject({
  kind: z.literal('prediction'),
  stepSeconds: seconds,
  tokensPerSecond: z.number(),
  exposedCopySeconds: seconds,
  hostBoundSeconds: seconds,
  isHostBound: z.boolean(),
  sections: z.array(
    z.strictObject({
      name: z.string(),
      runs: count,
      makespanSeconds: seconds,
      busySeconds: z.record(z.string(), seconds),
      exposedCopySeconds: seconds,
    } satisfies Shape<SectionPrediction>),
  ),
  byKind: z.partialRecord(z.enum(OP_KIND_NAMES), z.strictObject({ count, seconds } satisfies Shape<KindSeconds>)),
  copiedBytes: z.record(z.string(), bytes),
  outsideSeconds: seconds,
  rateOrigins: z.partialRecord(RATE_NAMES, z.enum(RATE_ORIGINS)),
  mfu: mfuSchema,
  evaluation: option(z.strictObject({ sequenceSeconds: seconds, tokensPerSecond: z.number() } satisfies Shape<EvaluationPrediction>)),
} satisfies Shape<Prediction>);

const costSchema = z.strictObject({
  gpuHoursPerStep: z.number(),
  gpuHoursPerBillionTokens: z.number(),
  usdPerGpuHour: option(z.number()),
  usdPerStep: option(z.number()),
  usdPerBillionTokens: option(z.number()),
} satisfies Shape<PlanCost>);

const requirementSchema = z.strictObject({
  text: z.string(),
  name: z.string(),
  operator: z.enum(OPERATORS),
  limit: z.number(),
  value: z.number(),
  met: z.boolean(),
} satisfies Shape<CheckedRequirement>);

const planSummarySchema = z.strictObject({
  kind: z.literal('planSummary'),
  version: z.literal(PLAN_VERSION),
  features: z.array(z.string()),
  digest: z.string(),
  fits: z.boolean(),
  model: modelSchema,
  cluster: clusterSchema,
  run: runSchema,
  deepspeed: foreignObject,
  strategy: strategySchema,
  kernels: kernelsSchema,
  collectiveTimeoutSeconds: positive,
  pools: z.array(poolSchema),
  links: z.array(linkSchema),
  streams: z.array(z.string()),
  tables: z.array(tableSchema),
  memory: ledgerSchema,
  prediction: predictionSchema,
  numModelParameters: positive,
  numTrainedParameters: count,
  numBuffers: count,
  numOps: z.record(z.string(), count),
  numTurns: count,
  numCalls: count,
  cost: costSchema,
  choice: option(choiceSchema),
  requirements: option(z.array(requirementSchema)),
} satisfies Shape<PlanJson>);

const boundSchema = z.strictObject({
  code: z.string(),
  message: z.string(),
  pools: z.array(
    z.strictObject({
      pool: z.string(),
      needBytes: bytes,
      haveBytes: bytes,
      instant: instantName,
      biggest: z.array(itemSchema),
    } satisfies Shape<PoolMisfit>),
  ),
} satisfies Shape<Bound>);

/** Of a policy that runs, and of a released program. */
const longest = { seqLen: positive, granularityTokens: positive, nextSeqLen: positive, bound: boundSchema };

const maxSeqLenSchema = z.strictObject({
  kind: z.literal('maxSeqLen'),
  ...longest,
  plan: planSummarySchema,
} satisfies Shape<LimitJson<MaxSeqLen>>);

const minGpusSchema = z.strictObject({
  kind: z.literal('minGpus'),
  gpus: positive,
  fewer: z.array(
    z.strictObject({
      gpus: positive,
      sequenceParallelSize: positive,
      dataParallelSize: positive,
      bound: boundSchema,
    } satisfies Shape<TooFewGpus>),
  ),
  plan: planSummarySchema,
} satisfies Shape<LimitJson<MinGpus>>);

const minHostSchema = z.strictObject({
  kind: z.literal('minHost'),
  hostBytes: count,
  granularityBytes: positive,
  less: z.strictObject({ hostBytes: count, bound: boundSchema }).nullable(),
  plan: planSummarySchema,
} satisfies Shape<LimitJson<MinHost>>);

const policyComparisonSchema = z.strictObject({
  kind: z.literal('policyComparison'),
  seqLen: positive,
  numRanks: positive,
  policies: z.array(
    z.strictObject({
      policy: z.enum(ALL_POLICIES),
      planOnly: z.boolean(),
      fits: z.boolean(),
      pools: z.array(z.strictObject({ pool: z.string(), peakBytes: bytes, capacityBytes: bytes } satisfies Shape<PoolUse>)),
      step: z.strictObject({ stepSeconds: seconds, tokensPerSecond: z.number(), mfu: mfuSchema } satisfies Shape<PolicyStep>).nullable(),
      cost: costSchema.nullable(),
      bound: boundSchema.nullable(),
      longestSeqLen: positive.nullable(),
    } satisfies Shape<PolicyRow>),
  ),
} satisfies Shape<PolicyComparison>);

const releasedPlanSchema = z.strictObject({
  kind: z.literal('releasedPlan'),
  policy: z.enum(PLAN_ONLY_POLICIES),
  planOnly: z.literal(true),
  options: z.strictObject({
    checkpoints: z.enum(CHECKPOINTS),
    chunkedAttention: z.boolean(),
    tiledLoss: z.boolean(),
    tiledMlp: z.boolean(),
    offloadWeights: z.boolean(),
  } satisfies Shape<ReleasedOptions>),
  family: z.string(),
  numModelParameters: positive,
  cluster: clusterSchema,
  run: runSchema.omit({ policy: true }),
  deepspeed: foreignObject,
  kernel: z.string(),
  fits: z.boolean(),
  memory: ledgerSchema,
  prediction: z.strictObject({
    stepSeconds: seconds,
    tokensPerSecond: z.number(),
    terms: z.array(z.strictObject({ name: z.string(), seconds, note: z.string() } satisfies Shape<TimeTerm>)),
    mfu: mfuSchema,
  } satisfies Shape<ReleasedPrediction>),
  cost: costSchema,
  remarks: z.array(z.string()),
} satisfies Shape<ReleasedPlan>);

const maxReleasedSeqLenSchema = z.strictObject({
  kind: z.literal('maxReleasedSeqLen'),
  ...longest,
  plan: releasedPlanSchema,
} satisfies Shape<MaxReleasedSeqLen>);

const settingChangeSchema = z.strictObject({ path: z.string(), a: z.unknown(), b: z.unknown() } satisfies Shape<SettingChange>);
const numberChangeSchema = z.strictObject({ name: z.string(), a: z.number(), b: z.number() } satisfies Shape<NumberChange>);
const bothBytes = z.strictObject({ a: bytes, b: bytes });

const planDiffSchema = z.strictObject({
  kind: z.literal('planDiff'),
  sameDigest: z.boolean(),
  inputs: z.array(settingChangeSchema),
  strategy: z.array(settingChangeSchema),
  memory: z.array(
    z.strictObject({
      pool: z.string(),
      peakBytes: bothBytes,
      capacityBytes: bothBytes,
      peakInstant: z.strictObject({ a: instantName.nullable(), b: instantName.nullable() }),
      items: z.array(numberChangeSchema),
    } satisfies Shape<PoolChange>),
  ),
  step: z.array(numberChangeSchema),
  kindSeconds: z.array(numberChangeSchema),
} satisfies Shape<PlanDiff>);

const errorSchema = z.strictObject({
  error: z.strictObject({
    code: z.string(),
    message: z.string(),
    hint: option(z.string()),
    details: option(z.record(z.string(), z.unknown())),
  }),
});

/** By the `kind` of what is printed, or written; `error` is printed in its place by a command that fails. */
export const OUTPUT_SCHEMAS = {
  planSummary: planSummarySchema,
  maxSeqLen: maxSeqLenSchema,
  minGpus: minGpusSchema,
  minHost: minHostSchema,
  policyComparison: policyComparisonSchema,
  releasedPlan: releasedPlanSchema,
  maxReleasedSeqLen: maxReleasedSeqLenSchema,
  planDiff: planDiffSchema,
  stepMetrics: stepMetricsSchema,
  evaluationMetrics: evaluationMetricsSchema,
  doctor: doctorSchema,
  setup: setupSchema,
  error: errorSchema,
} as const;
