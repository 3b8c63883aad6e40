/** From frames back to a plan, checking that nothing is missing or unknown and that it is the plan its digest names. */
import { inflateSync } from 'node:zlib';
import type * as z from 'zod';
import { OP_ROWS } from '../catalog/ops/index.js';
import { isObject, PARSE_ONCE } from '../spec/parseJson.js';
import type { PoolLedger } from '../memory/ledger.js';
import { bytesOf, COLUMN_NAMES, COLUMNS, type ColumnDescriptor, type RawColumn } from './columns.js';
import { checkReferences } from './checkReferences.js';
import { decodeSections } from './decodeSections.js';
import { digestOf, OP_KIND_HEADERS, type PlanProse } from './encode.js';
import { type ExecutionPlan, PLAN_VERSION } from './executionPlan.js';
import { FEATURE_NAMES } from './features.js';
import { type OpKindHeader, type PlanHeader, planHeaderSchema } from './header.js';
import { damaged, unsupported, wrongVersion } from './planErrors.js';

/** A plan as it was sent or stored: JSON bytes, and the deflated bytes of every column by name. */
export interface PlanFrames {
  readonly header: Buffer;
  readonly prose: Buffer;
  readonly columns: readonly { readonly name: string; readonly data: Buffer }[];
  /** When given, the content must have it. */
  readonly digest?: string;
}

/** Throws an FpdtError: `plan-version`, `plan-unsupported`, `plan-digest-mismatch` or `plan-damaged`, with what to do. */
export function decodePlan(frames: PlanFrames): ExecutionPlan {
  const header = parseHeader(frames.header);
  const columns = header.columns.map((descriptor) => rawColumn(descriptor, frames.columns));
  const digest = digestOf(frames.header, columns);
  if (frames.digest !== undefined && frames.digest !== digest)
    throw damaged(`its content has digest ${digest}, not ${frames.digest} as it says`, 'plan-digest-mismatch');
  const prose = parseProse(frames.prose, header);
  const { device: _device, numRanks: _numRanks, ranksPerNode: _ranksPerNode, opKinds: _kinds, columns: _columns, ...rest } = header;
  return { ...rest, sections: decodeSections(header, columns), ...prose, digest };
}

function parseHeader(bytes: Buffer): PlanHeader {
  const value = parseObject(bytes, 'header');
  if (value['kind'] !== 'executionPlan') throw damaged(`its kind is ${JSON.stringify(value['kind'])}, expected "executionPlan"`);
  if (value['version'] !== PLAN_VERSION) throw wrongVersion(value['version']);
  const parsed = planHeaderSchema.safeParse(value, PARSE_ONCE);
  if (!parsed.success) throw damaged(`its header has ${describeIssue(parsed.error.issues[0])}`);
  const header: PlanHeader = parsed.data;
  refuseUnknown(header);
  checkColumns(header.columns);
  checkReferences(header);
  return header;
}

function describeIssue(issue: z.core.$ZodIssue | undefined): string {
  return `${issue?.path.map(String).join('.') || 'its fields'}: ${issue?.message ?? 'unknown'}`;
}

function refuseUnknown({ features, opKinds }: PlanHeader): void {
  const known: readonly string[] = FEATURE_NAMES;
  const foreign = features.filter((name) => !known.includes(name));
  if (foreign.length > 0) throw unsupported('features', foreign);
  const unknown = opKinds.filter(({ name }) => !Object.hasOwn(OP_ROWS, name));
  const changed = opKinds.filter((row) => !unknown.includes(row) && !sameRow(row));
  const names = (rows: readonly OpKindHeader[]): string[] => rows.map(({ name }) => name);
  if (unknown.length > 0) throw unsupported('op kinds', names(unknown));
  if (changed.length > 0) throw unsupported('op kinds with other views or streams', names(changed));
}

function sameRow(row: OpKindHeader): boolean {
  const own = OP_KIND_HEADERS.find(({ name }) => name === row.name);
  return JSON.stringify(own) === JSON.stringify(row);
}

function checkColumns(columns: readonly ColumnDescriptor[]): void {
  const missing = COLUMN_NAMES.filter((name) => columns.filter((column) => column.name === name).length !== 1);
  if (missing.length > 0) throw damaged(`its header has not one column ${missing.join(', ')}`);
  for (const { name, dtype } of columns) {
    if (COLUMNS[name] !== dtype) throw damaged(`column ${name} is of type ${dtype}, expected ${COLUMNS[name]}`);
  }
}

function parseObject(bytes: Buffer, what: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    if (isObject(value)) return value;
  } catch (cause) {
    throw damaged(`its ${what} is not JSON: ${(cause as Error).message}`);
  }
  throw damaged(`its ${what} is not a JSON object`);
}

/** What people read is not hashed; it must still be there, and be about the same ranks. */
function parseProse(bytes: Buffer, header: PlanHeader): PlanProse {
  const { cluster, memory, prediction } = parseObject(bytes, 'prose') as unknown as Partial<PlanProse>;
  if (cluster?.kind !== 'cluster' || memory?.kind !== 'memoryLedger' || prediction?.kind !== 'prediction')
    throw damaged('its prose lacks a cluster, a memory ledger or a prediction');
  const pools = memory.pools as readonly Partial<PoolLedger>[] | undefined;
  if (pools?.every(({ load }) => load !== undefined) !== true) throw damaged('its memory ledger lacks the load instant');
  for (const field of ['device', 'numRanks', 'ranksPerNode'] as const) {
    if (cluster[field] !== header[field]) throw damaged(`its prose says ${field} ${cluster[field]}, its header ${header[field]}`);
  }
  return { cluster, memory, prediction };
}

function rawColumn(descriptor: ColumnDescriptor, columns: PlanFrames['columns']): RawColumn {
  const { name, dtype, length } = descriptor;
  const deflated = columns.find((column) => column.name === name)?.data;
  if (deflated === undefined) throw damaged(`column ${name} is missing`);
  const expected = bytesOf(descriptor);
  const data = inflate(name, deflated, expected);
  if (data.length !== expected) throw damaged(`column ${name} has ${data.length} bytes, expected ${expected} (${length} of ${dtype})`);
  return { name, dtype, length, data };
}

/** Never more than a byte beyond what is expected, whatever the bytes are. */
function inflate(name: string, deflated: Buffer, expected: number): Buffer {
  try {
    return inflateSync(deflated, { maxOutputLength: expected + 1 });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw damaged(
      code === 'ERR_BUFFER_TOO_LARGE'
        ? `column ${name} has more than the expected ${expected} bytes`
        : `column ${name} does not inflate: ${message}`,
    );
  }
}
