/**
 * A plan as bytes: a canonical JSON header, and the ops of all sections as columns. The digest covers both, so that controller and
 * ranks can agree on a plan by 64 characters.
 */
import { createHash } from 'node:crypto';
import { type Access, OP_KIND_NAMES, type Op, type Range, SECTIONS, STREAMS } from '../schedule/op.js';
import { canonicalJson } from './canonical.js';
import {
  ACCESS_GROUPS,
  type AccessGroup,
  BINDS,
  COLUMN_NAMES,
  type ColumnDescriptor,
  type ColumnName,
  type EncodedColumn,
  packColumn,
} from './columns.js';
import type { ExecutionPlan } from './executionPlan.js';

export interface EncodedPlan {
  /** Canonical JSON, UTF-8: the plan without ops and digest, with `columns`, `sections` and `opKinds`. */
  readonly header: Buffer;
  readonly columns: readonly EncodedColumn[];
  readonly digest: string;
}

export type UnsealedPlan = Omit<ExecutionPlan, 'digest'>;

/** Adds the digest to a finished plan. */
export function sealPlan(plan: UnsealedPlan): ExecutionPlan {
  return { ...plan, digest: encodePlan(plan).digest };
}

export function encodePlan(plan: UnsealedPlan): EncodedPlan {
  const ops = SECTIONS.flatMap((name) => plan.schedule[name].ops);
  const values = columnValues(ops);
  const columns = COLUMN_NAMES.map((name) => packColumn(name, values[name]));
  const header = Buffer.from(canonicalJson(headerOf(plan, columns)), 'utf8');
  return { header, columns, digest: digestOf(header, columns) };
}

export function digestOf(header: Buffer, columns: readonly Pick<EncodedColumn, 'data'>[]): string {
  const hash = createHash('sha256').update(header);
  for (const { data } of columns) hash.update(data);
  return hash.digest('hex');
}

function headerOf(plan: UnsealedPlan, columns: readonly ColumnDescriptor[]): Readonly<Record<string, unknown>> {
  const { schedule, digest: _digest, ...rest } = plan as ExecutionPlan;
  return {
    ...rest,
    opKinds: OP_KIND_NAMES,
    columns: columns.map(({ name, dtype, length }) => ({ name, dtype, length })),
    sections: SECTIONS.map((name) => ({ name, numOps: schedule[name].ops.length, parts: schedule[name].parts })),
  };
}

function columnValues(ops: readonly Op[]): Readonly<Record<ColumnName, readonly number[]>> {
  const [reads, writes, accumulates] = ACCESS_GROUPS;
  return {
    opKind: ops.map((op) => OP_KIND_NAMES.indexOf(op.kind)),
    opStream: ops.map((op) => STREAMS.indexOf(op.stream)),
    opLayerSlot: ops.map((op) => op.layerSlot),
    opTokens: rangeValues(ops.map(({ tokens }) => tokens)),
    opKv: rangeValues(ops.map(({ kv }) => kv)),
    opScratch: ops.map((op) => op.scratchBytes),
    opReads: offsetsOf(ops.map((op) => op.reads)),
    opWrites: offsetsOf(ops.map((op) => op.writes)),
    opAccumulates: offsetsOf(ops.map((op) => op.accumulates)),
    opWaits: offsetsOf(ops.map((op) => op.waits)),
    ...accessValues(ops, reads),
    ...accessValues(ops, writes),
    ...accessValues(ops, accumulates),
    wait: ops.flatMap((op) => op.waits),
  };
}

/** Start and end of each range; -1 twice where there is none. */
function rangeValues(ranges: readonly (Range | undefined)[]): readonly number[] {
  const values: number[] = [];
  for (const range of ranges) values.push(range?.start ?? -1, range?.end ?? -1);
  return values;
}

type GroupColumn<N extends AccessGroup['name']> = `${N}${'Buffer' | 'Start' | 'End' | 'Bind' | 'Index'}`;

function accessValues<N extends AccessGroup['name']>(
  ops: readonly Op[],
  { name, field }: { readonly name: N; readonly field: AccessGroup['field'] },
): Readonly<Record<GroupColumn<N>, readonly number[]>> {
  const all: Access[] = [];
  for (const op of ops) for (const access of op[field]) all.push(access);
  return {
    [`${name}Buffer`]: all.map(({ buffer }) => buffer),
    [`${name}Start`]: all.map(({ rows }) => rows.start),
    [`${name}End`]: all.map(({ rows }) => rows.end),
    [`${name}Bind`]: all.map(({ bind }) => BINDS.indexOf(bind)),
    [`${name}Index`]: all.map(({ index }) => index),
  } as unknown as Record<GroupColumn<N>, readonly number[]>;
}

/** CSR offsets: where the items of each op start in the concatenation, and the total at the end. */
function offsetsOf(items: readonly (readonly unknown[])[]): readonly number[] {
  const offsets = [0];
  for (const list of items) offsets.push((offsets.at(-1) ?? 0) + list.length);
  return offsets;
}
