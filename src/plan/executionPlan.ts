import type { MemoryLedger } from '../memory/ledger.js';
import type { Strategy } from '../chunk/strategy.js';
import type { Prediction } from '../schedule/simulate.js';
import type { Buffer } from '../schedule/buffer.js';
import type { Section, SectionName } from '../schedule/op.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';

/** Bumped whenever an older worker could misread a plan. */
export const PLAN_VERSION = 1;

/** Sizes of the two arenas of a rank, in bytes. */
export interface Arenas {
  readonly hbm: number;
  readonly host: number;
}

/** Which heads each sequence-parallel rank owns after the all-to-all, as lists of head indices. */
export interface HeadMap {
  readonly query: readonly (readonly number[])[];
  readonly keyValue: readonly (readonly number[])[];
}

/** Everything a worker needs, and everything a reader wants to know. Readonly, JSON-safe; one plan serves all ranks. */
export interface ExecutionPlan {
  readonly kind: 'executionPlan';
  readonly version: typeof PLAN_VERSION;
  /** SHA-256 over the canonical header and the op columns; see encode.ts. */
  readonly digest: string;
  readonly model: ModelSpec;
  readonly cluster: ClusterSpec;
  readonly run: RunSpec;
  readonly deepspeed: DeepSpeedConfig;
  readonly strategy: Strategy;
  readonly parameters: ParameterTable;
  readonly headMap: HeadMap;
  readonly arenas: Arenas;
  readonly buffers: readonly Buffer[];
  readonly schedule: Readonly<Record<SectionName, Section>>;
  readonly memory: MemoryLedger;
  readonly prediction: Prediction;
}
