/**
 * The executed header of a plan: all that a worker obeys but the ops. Strict, and exported as schemas/planHeader.json, which the
 * worker's own reader is held against.
 */
import * as z from 'zod';
import type { FusedKernels } from '../catalog/fusedKernels.js';
import type { Kernels } from '../catalog/kernels.js';
import type { OpKindRow } from '../catalog/ops/index.js';
import type { Buffer } from '../schedule/buffer.js';
import type { Programs } from '../schedule/schedule.js';
import type { Attribute, HeadGroup, Parameter, Role, Section } from '../schedule/op.js';
import type { Call, Program, Table, Turn } from '../schedule/program.js';
import { KERNEL_NAMES } from '../spec/kernelChoices.js';
import type { ClusterSpec } from '../spec/types.js';
import type { Link, Pool } from '../spec/pools.js';
import { COLUMN_DTYPES, COLUMN_NAMES, type ColumnDescriptor } from './columns.js';
import { type ExecutionPlan, PLAN_VERSION } from './executionPlan.js';
import {
  count,
  dotted,
  foreignObject,
  layoutSchema,
  modelSchema,
  parametersSchema,
  positive,
  runSchema,
  type Shape,
  strategySchema,
  word,
} from './headerSpecs.js';

/** A row of the op table as the plan carries it; the worker checks its own against it. */
export interface OpKindHeader extends Pick<OpKindRow, 'stream' | 'reads' | 'writes' | 'accumulates' | 'external'> {
  readonly name: string;
}

/** A section without its ops, which are the next `numOps` of the columns. */
export interface SectionHeader extends Pick<Section, 'name' | 'params'> {
  readonly numOps: number;
}

type ExecutedField =
  | ('kind' | 'version' | 'features' | 'model' | 'run' | 'deepspeed' | 'strategy' | 'parameters' | 'layout')
  | ('pools' | 'links' | 'streams' | 'kernels' | 'buffers' | 'attributes' | 'tables' | 'programs')
  | 'collectiveTimeoutSeconds';

export interface PlanHeader extends Pick<ExecutionPlan, ExecutedField> {
  readonly device: ClusterSpec['device'];
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly opKinds: readonly OpKindHeader[];
  readonly sections: readonly SectionHeader[];
  readonly columns: readonly ColumnDescriptor[];
}

const views = z.union([z.array(word), z.literal('many')]);

const opKindSchema = z.strictObject({
  name: word,
  stream: z.enum(['compute', 'comm', 'link']),
  reads: views,
  writes: views,
  accumulates: views,
  external: z.boolean(),
} satisfies Shape<OpKindHeader>);

export const poolSchema = z.strictObject({ name: word, kind: z.enum(['device', 'pinned', 'file']), bytes: count } satisfies Shape<Pool>);
export const linkSchema = z.strictObject({ from: word, to: word, stream: word } satisfies Shape<Link>);
const fusedKernelsSchema = z.strictObject({
  loss: z.exactOptional(z.enum(KERNEL_NAMES.loss)),
  merge: z.exactOptional(z.enum(KERNEL_NAMES.merge)),
  norm: z.exactOptional(z.enum(KERNEL_NAMES.norm)),
  rope: z.exactOptional(z.enum(KERNEL_NAMES.rope)),
  elementwise: z.exactOptional(z.enum(KERNEL_NAMES.elementwise)),
  weightGradient: z.exactOptional(z.enum(KERNEL_NAMES.weightGradient)),
  blockBytes: positive,
} satisfies Shape<FusedKernels>);
export const kernelsSchema = z.strictObject({
  attn: word,
  attnBwd: word,
  fused: z.exactOptional(fusedKernelsSchema),
} satisfies Shape<Kernels>);

const bufferSchema = z.strictObject({
  id: count,
  name: dotted,
  pool: word,
  dtype: z.enum(['float64', 'float32', 'bfloat16', 'float16', 'int64']),
  shape: z.array(positive).min(1),
  strides: z.array(count).min(1),
  blockRows: z.exactOptional(positive),
  instances: positive,
  instanceBytes: count,
  offset: count,
  scope: z.enum(['call', 'step']),
} satisfies Shape<Buffer>);

const maskSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('full') }),
  z.strictObject({ kind: z.literal('causal') }),
  z.strictObject({ kind: z.literal('window'), window: positive }),
]);
const headGroupSchema = z.strictObject({ groups: positive, group: z.exactOptional(count) } satisfies Shape<HeadGroup>);
const attributeSchema = z.strictObject({
  mask: z.exactOptional(maskSchema),
  tiles: z.exactOptional(positive),
  heads: z.exactOptional(headGroupSchema),
} satisfies Shape<Attribute>);

export const tableSchema = z.strictObject({
  name: word,
  dtype: z.enum(['int64', 'float32']),
  capacity: positive,
  buffer: count,
} satisfies Shape<Table>);

const roleSchema = z.strictObject({
  value: z.enum(['hidden', 'hiddenGradient', 'attentionOutput', 'internals']),
  layer: z.int(),
} satisfies Shape<Role>);
const parameterSchema = z.strictObject({
  name: word,
  entry: z.exactOptional(roleSchema),
  exit: z.exactOptional(roleSchema),
} satisfies Shape<Parameter>);
const sectionSchema = z.strictObject({ name: dotted, params: z.array(parameterSchema), numOps: count } satisfies Shape<SectionHeader>);

const callSchema = z.strictObject({
  section: dotted,
  args: z.array(count),
  layer: z.exactOptional(count),
  owner: z.enum(['plan', 'zero']),
  waits: z.array(count),
} satisfies Shape<Call>);
const turnSchema = z.strictObject({
  module: z.enum(['embed', 'layer', 'head', 'end']),
  layer: z.exactOptional(count),
  direction: z.enum(['forward', 'backward']),
  calls: z.array(callSchema),
} satisfies Shape<Turn>);
const programSchema = z.strictObject({ turns: z.array(turnSchema) } satisfies Shape<Program>);

const columnSchema = z.strictObject({
  name: z.enum(COLUMN_NAMES),
  dtype: z.enum(COLUMN_DTYPES),
  length: count,
} satisfies Shape<ColumnDescriptor>);

export const planHeaderSchema = z
  .strictObject({
    kind: z.literal('executionPlan'),
    version: z.literal(PLAN_VERSION),
    features: z.array(z.string()),
    device: z.enum(['cpu', 'cuda']),
    numRanks: positive,
    ranksPerNode: positive,
    model: modelSchema,
    run: runSchema,
    deepspeed: foreignObject,
    strategy: strategySchema,
    parameters: parametersSchema,
    layout: layoutSchema,
    pools: z.array(poolSchema),
    links: z.array(linkSchema),
    streams: z.array(word),
    kernels: kernelsSchema,
    collectiveTimeoutSeconds: positive,
    opKinds: z.array(opKindSchema),
    buffers: z.array(bufferSchema),
    attributes: z.array(attributeSchema),
    tables: z.array(tableSchema),
    sections: z.array(sectionSchema),
    programs: z.strictObject({ train: programSchema, evaluate: z.exactOptional(programSchema) } satisfies Shape<Programs>),
    columns: z.array(columnSchema),
  } satisfies Shape<PlanHeader>)
  .meta({ title: 'PlanHeader' });
