/**
 * A plan as bytes: an executed header and prose, both JSON, and the ops of all sections as columns. The digest covers what is
 * executed, header and uncompressed columns, so that controller and ranks can agree on a plan by 64 characters.
 */
import { createHash } from 'node:crypto';
import { deflateSync } from 'node:zlib';
import * as z from 'zod';
import { OP_KIND_NAMES, OP_ROWS, type OpKindRow } from '../catalog/ops/index.js';
import { AccessNumbers } from '../schedule/accessNumbers.js';
import type { Access, Op } from '../schedule/op.js';
import { PARSE_ONCE } from '../spec/parseJson.js';
import { type ColumnDescriptor, type ColumnName, COLUMN_NAMES, packColumn, type RawColumn } from './columns.js';
import type { ExecutionPlan, UnsealedPlan } from './executionPlan.js';
import { featuresOf } from './features.js';
import { type OpKindHeader, type PlanHeader, planHeaderSchema } from './header.js';

/** A column as it travels: raw little-endian bytes, deflated. */
export interface EncodedColumn extends ColumnDescriptor {
  readonly data: Buffer;
}

export interface EncodedPlan {
  /** JSON, UTF-8. Neither side forms it again: these bytes are hashed, sent and stored. */
  readonly header: Buffer;
  /** JSON, UTF-8: cluster, memory and prediction, for people. */
  readonly prose: Buffer;
  readonly columns: readonly EncodedColumn[];
  readonly digest: string;
}

/** What of a plan is not executed. */
export type PlanProse = Pick<ExecutionPlan, 'cluster' | 'memory' | 'prediction'>;

interface Executed {
  readonly features: readonly string[];
  readonly header: Buffer;
  readonly columns: readonly RawColumn[];
  readonly digest: string;
}

/** Adds features and digest to a finished plan. */
export function sealPlan(plan: UnsealedPlan): ExecutionPlan {
  const { features, digest } = encodeExecuted(plan);
  return { ...plan, features, digest };
}

/** Throws a RangeError for a number that its column cannot hold, a TypeError for a plan that its header cannot say. */
export function encodePlan(plan: UnsealedPlan): EncodedPlan {
  const { header, columns, digest } = encodeExecuted(plan);
  const { cluster, memory, prediction } = plan;
  const prose: PlanProse = { cluster, memory, prediction };
  return { header, prose: toJson(prose), columns: columns.map(deflateColumn), digest };
}

export function digestOf(header: Buffer, columns: readonly Pick<RawColumn, 'data'>[]): string {
  const hash = createHash('sha256').update(header);
  for (const { data } of columns) hash.update(data);
  return hash.digest('hex');
}

/** The fastest level: columns repeat themselves, and others save little but take several times as long. */
function deflateColumn(column: RawColumn): EncodedColumn {
  return { ...column, data: deflateSync(column.data, { level: 1 }) };
}

function encodeExecuted(plan: UnsealedPlan): Executed {
  const features = featuresOf(plan);
  const columns = writeColumns(plan);
  const header = toJson(headerOf(plan, features, columns));
  return { features, header, columns, digest: digestOf(header, columns) };
}

/** Parsing puts keys into the order of the schema, so that a plan that was read back has the same bytes. */
function headerOf(plan: UnsealedPlan, features: readonly string[], columns: readonly ColumnDescriptor[]): PlanHeader {
  const { cluster, memory: _memory, prediction: _prediction, sections, ...rest } = plan;
  const { digest: _digest, ...executed } = rest as typeof rest & { readonly digest?: string };
  const header: PlanHeader = {
    ...executed,
    features,
    device: cluster.device,
    numRanks: cluster.numRanks,
    ranksPerNode: cluster.ranksPerNode,
    opKinds: OP_KIND_HEADERS,
    sections: sections.map(({ name, params, ops }) => ({ name, params, numOps: ops.length })),
    columns: columns.map(({ name, dtype, length }) => ({ name, dtype, length })),
  };
  const parsed = planHeaderSchema.safeParse(header, PARSE_ONCE);
  if (!parsed.success) throw new TypeError(`the plan does not fit its header: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

export const OP_KIND_HEADERS: readonly OpKindHeader[] = OP_KIND_NAMES.map((name) => {
  const { stream, reads, writes, accumulates, external }: OpKindRow = OP_ROWS[name];
  return { name, stream, reads, writes, accumulates, external };
});

/** Throws a TypeError for a number that JSON would turn into null. */
function toJson(value: unknown): Buffer {
  const text = JSON.stringify(value, (key, item: unknown) => {
    if (typeof item === 'number' && !Number.isFinite(item)) throw new TypeError(`a plan cannot hold ${key} = ${item}`);
    return item;
  });
  return Buffer.from(text, 'utf8');
}

/** The ops of all sections, one after the other. */
function writeColumns({ sections, streams }: UnsealedPlan): readonly RawColumn[] {
  const writer = new OpWriter(sections, streams);
  for (const { ops } of sections) for (const op of ops) writer.write(op);
  const columns: Columns = { ...writer.columns, ...accessColumns(writer.accesses.distinct) };
  return COLUMN_NAMES.map((name) => packColumn(name, columns[name]));
}

type Columns = Readonly<Record<ColumnName, Float64Array>>;
type AccessColumn = 'accessBuffer' | 'accessStart' | 'accessEnd' | 'accessParam' | 'accessIndex';

/** Writes ops into columns of their final length: arrays that grow hold a few million numbers several times. */
class OpWriter {
  readonly columns: Omit<Columns, AccessColumn>;
  readonly accesses = new AccessNumbers();
  private readonly streams: readonly string[];
  private numOps = 0;
  private numViews = 0;
  private numWaits = 0;

  constructor(sections: UnsealedPlan['sections'], streams: readonly string[]) {
    const { ops, views, waits } = countAll(sections);
    const column = (length: number): Float64Array => new Float64Array(length);
    this.streams = streams;
    this.columns = {
      opKind: column(ops),
      opStream: column(ops),
      opTokens: column(2 * ops),
      opKv: column(2 * ops),
      opAttribute: column(ops),
      opScratch: column(ops),
      opViews: column(ops + 1),
      opNumReads: column(ops),
      opNumWrites: column(ops),
      view: column(views),
      opWaits: column(ops + 1),
      wait: column(waits),
    };
  }

  write(op: Op): void {
    const { columns } = this;
    const at = this.numOps++;
    columns.opKind[at] = KIND_NUMBERS.get(op.kind) ?? -1;
    columns.opStream[at] = this.streams.indexOf(op.stream);
    columns.opTokens[2 * at] = op.tokens.start;
    columns.opTokens[2 * at + 1] = op.tokens.end;
    columns.opKv[2 * at] = op.kv?.start ?? -1;
    columns.opKv[2 * at + 1] = op.kv?.end ?? -1;
    columns.opAttribute[at] = op.attribute ?? -1;
    columns.opScratch[at] = op.scratchBytes;
    columns.opNumReads[at] = op.reads.length;
    columns.opNumWrites[at] = op.writes.length;
    this.writeViews(op.reads);
    this.writeViews(op.writes);
    this.writeViews(op.accumulates);
    columns.opViews[at + 1] = this.numViews;
    for (const wait of op.waits) columns.wait[this.numWaits++] = wait;
    columns.opWaits[at + 1] = this.numWaits;
  }

  private writeViews(accesses: readonly Access[]): void {
    for (const access of accesses) this.columns.view[this.numViews++] = this.accesses.numberOf(access);
  }
}

function countAll(sections: UnsealedPlan['sections']): { readonly ops: number; readonly views: number; readonly waits: number } {
  const count = { ops: 0, views: 0, waits: 0 };
  for (const { ops } of sections) {
    count.ops += ops.length;
    for (const op of ops) {
      count.views += op.reads.length + op.writes.length + op.accumulates.length;
      count.waits += op.waits.length;
    }
  }
  return count;
}

function accessColumns(accesses: readonly Access[]): Pick<Columns, AccessColumn> {
  return {
    accessBuffer: Float64Array.from(accesses, ({ buffer }) => buffer),
    accessStart: Float64Array.from(accesses, ({ rows }) => rows.start),
    accessEnd: Float64Array.from(accesses, ({ rows }) => rows.end),
    accessParam: Float64Array.from(accesses, ({ param }) => param),
    accessIndex: Float64Array.from(accesses, ({ index }) => index),
  };
}

const KIND_NUMBERS = new Map<string, number>(OP_KIND_NAMES.map((name, number) => [name, number]));
