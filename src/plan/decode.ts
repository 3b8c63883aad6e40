/** From header and columns back to a plan, checking that nothing is missing and that it is the plan its digest names. */
import {
  type Access,
  OP_KINDS,
  type Op,
  type OpKind,
  SECTIONS,
  STREAMS,
  type Section,
  type SectionName,
  type SectionPart,
} from '../schedule/op.js';
import { FpdtError } from '../spec/errors.js';
import {
  ACCESS_GROUPS,
  type AccessGroup,
  BINDS,
  COLUMNS,
  COLUMN_BYTES,
  COLUMN_NAMES,
  type ColumnDescriptor,
  type ColumnName,
  unpackColumn,
} from './columns.js';
import { digestOf } from './encode.js';
import { type ExecutionPlan, PLAN_VERSION } from './executionPlan.js';

/** Header bytes as they were sent or canonicalised, and the bytes of every column by name. */
export interface PlanBytes {
  readonly header: Buffer;
  readonly columns: readonly { readonly name: string; readonly data: Buffer }[];
  /** When given, the bytes must have it. */
  readonly digest?: string;
}

interface Header {
  readonly version: number;
  readonly opKinds: readonly OpKind[];
  readonly columns: readonly ColumnDescriptor[];
  readonly sections: readonly { readonly name: SectionName; readonly numOps: number; readonly parts: readonly SectionPart[] }[];
}
type Values = Readonly<Record<ColumnName, readonly number[]>>;

export function decodePlan({ header: bytes, columns, digest }: PlanBytes): ExecutionPlan {
  const header = parseHeader(bytes);
  const { opKinds, columns: descriptors, sections, ...rest } = header;
  const data = descriptors.map((descriptor) => columnData(descriptor, columns));
  const found = digestOf(bytes, data);
  if (digest !== undefined && digest !== found)
    throw damaged(`its content has digest ${found}, not ${digest} as it says`, 'plan-digest-mismatch');
  const values = Object.fromEntries(data.map((column) => [column.name, unpackColumn(column)])) as unknown as Values;
  const ops = decodeOps(values, opKinds);
  return { ...rest, schedule: splitSections(ops, sections), digest: found } as unknown as ExecutionPlan;
}

function parseHeader(bytes: Buffer): Header {
  const header = parseObject(bytes);
  if (header['kind'] !== 'executionPlan') throw damaged(`its kind is ${JSON.stringify(header['kind'])}, expected "executionPlan"`);
  if (header['version'] !== PLAN_VERSION) throw wrongVersion(header['version']);
  for (const key of ['opKinds', 'columns', 'sections']) {
    if (!Array.isArray(header[key])) throw damaged(`its header has no list "${key}"`);
  }
  const unknown = (header as unknown as Header).opKinds.filter((name) => !Object.hasOwn(OP_KINDS, name));
  if (unknown.length > 0) throw damaged(`it names op kinds that are unknown here: ${unknown.join(', ')}`);
  const missing = COLUMN_NAMES.filter((name) => !(header as unknown as Header).columns.some((column) => column.name === name));
  if (missing.length > 0) throw damaged(`it has no column ${missing.join(', ')}`);
  return header as unknown as Header;
}

function parseObject(bytes: Buffer): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch (cause) {
    throw damaged(`its header is not JSON: ${(cause as Error).message}`);
  }
  throw damaged('its header is not a JSON object');
}

function columnData({ name, dtype, length }: ColumnDescriptor, columns: PlanBytes['columns']) {
  const data = columns.find((column) => column.name === name)?.data;
  if (data === undefined) throw damaged(`column ${name} is missing`);
  if (COLUMNS[name] !== dtype) throw damaged(`column ${name} is of type ${dtype}, expected ${COLUMNS[name] ?? 'no such column'}`);
  const expected = length * COLUMN_BYTES[dtype];
  if (data.length !== expected) throw damaged(`column ${name} has ${data.length} bytes, expected ${expected} (${length} of ${dtype})`);
  return { name, dtype, length, data };
}

function decodeOps(values: Values, kinds: readonly OpKind[]): readonly Omit<Op, 'id'>[] {
  const [readsOf, writesOf, accumulatesOf] = ACCESS_GROUPS.map((group) => accessReader(values, group));
  return values.opKind.map((kind, i) => {
    const kv = rangeAt(values.opKv, i);
    return {
      kind: pick(kinds, kind, 'op kind'),
      stream: pick(STREAMS, at(values.opStream, i), 'stream'),
      layerSlot: at(values.opLayerSlot, i),
      tokens: rangeAt(values.opTokens, i),
      ...(kv.start < 0 ? {} : { kv }),
      reads: readsOf?.(i) ?? [],
      writes: writesOf?.(i) ?? [],
      accumulates: accumulatesOf?.(i) ?? [],
      waits: values.wait.slice(at(values.opWaits, i), at(values.opWaits, i + 1)),
      scratchBytes: at(values.opScratch, i),
    };
  });
}

function accessReader(values: Values, { name, offsets }: AccessGroup): (op: number) => readonly Access[] {
  const all = values[`${name}Buffer`].map(
    (buffer, i): Access => ({
      buffer,
      rows: { start: at(values[`${name}Start`], i), end: at(values[`${name}End`], i) },
      bind: pick(BINDS, at(values[`${name}Bind`], i), 'bind'),
      index: at(values[`${name}Index`], i),
    }),
  );
  return (op) => all.slice(at(values[offsets], op), at(values[offsets], op + 1));
}

function splitSections(ops: readonly Omit<Op, 'id'>[], sections: Header['sections']): Readonly<Record<SectionName, Section>> {
  let start = 0;
  const entries = sections.map(({ name, numOps, parts }) => {
    const own = ops.slice(start, start + numOps).map((op, id): Op => ({ id, ...op }));
    start += numOps;
    return [name, { name, ops: own, parts }] as const;
  });
  if (start !== ops.length || SECTIONS.some((name) => !sections.some((section) => section.name === name))) {
    throw damaged(`its sections hold ${start} ops, its columns ${ops.length}`);
  }
  return Object.fromEntries(entries) as unknown as Record<SectionName, Section>;
}

function at(values: readonly number[], index: number): number {
  const value = values[index];
  if (value === undefined) throw damaged(`a column ends before its element ${index}`);
  return value;
}

function pick<T>(names: readonly T[], index: number, what: string): T {
  const name = names[index];
  if (name === undefined) throw damaged(`there is no ${what} number ${index}`);
  return name;
}

function rangeAt(values: readonly number[], i: number) {
  return { start: at(values, 2 * i), end: at(values, 2 * i + 1) };
}

export function damaged(problem: string, code = 'plan-damaged'): FpdtError {
  return new FpdtError(`the plan cannot be read: ${problem}`, { code, hint: 'write the plan again with `fpdt plan`' });
}

export function wrongVersion(found: unknown): FpdtError {
  const older = typeof found === 'number' && found < PLAN_VERSION;
  return new FpdtError(`the plan is of version ${JSON.stringify(found)}, this fpdt reads version ${PLAN_VERSION}`, {
    code: 'plan-version',
    hint: older ? 'write the plan again with `fpdt plan`' : 'use the fpdt version that wrote the plan, or write it again',
    details: { found, expected: PLAN_VERSION },
  });
}
