import type { Kernels } from '../catalog/kernels.js';
import type { MemoryLedger } from '../memory/ledger.js';
import type { Prediction } from '../predict/prediction.js';
import type { Schedule } from '../schedule/schedule.js';
import type { ParallelLayout } from '../spec/parallelLayout.js';
import type { Strategy } from '../spec/strategy.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';

/** Bumped whenever an older worker could misread a plan. */
export const PLAN_VERSION = 2;

/** Everything a worker needs, and everything a reader wants to know. Readonly, JSON-safe; one plan serves all ranks. */
export interface ExecutionPlan extends Schedule {
  readonly kind: 'executionPlan';
  readonly version: typeof PLAN_VERSION;
  /** What a worker must know to run it, by name; see features.ts. */
  readonly features: readonly string[];
  /** SHA-256 over what is executed; see encode.ts. */
  readonly digest: string;
  readonly model: ModelSpec;
  readonly cluster: ClusterSpec;
  readonly run: RunSpec;
  readonly deepspeed: DeepSpeedConfig;
  readonly strategy: Strategy;
  readonly parameters: ParameterTable;
  readonly layout: ParallelLayout;
  /** What the plan's masks, rates and temporaries assume; the worker obeys or refuses. */
  readonly kernels: Kernels;
  /** Of every process group, see collectiveTimeout.ts. */
  readonly collectiveTimeoutSeconds: number;
  readonly memory: MemoryLedger;
  readonly prediction: Prediction;
}

/** A plan before it is sealed: features and digest follow from the rest. */
export type UnsealedPlan = Omit<ExecutionPlan, 'digest' | 'features'>;
