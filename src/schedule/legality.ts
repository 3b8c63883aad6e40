/** What an op may look like on its own: its kind's row in the table, its waits, and the bounds of its views. */
import { DTYPE_BYTES } from '../spec/dtype.js';
import type { Buffer, Pool } from './buffer.js';
import { type Access, OP_KINDS, type Op, type OpKindRow, type Section } from './op.js';
import { accessToText } from './text.js';
import type { VerifyInput } from './verify.js';

const GROUPS = ['reads', 'writes', 'accumulates'] as const;

/** Nearly all ops are legal, so nothing is made for one that is. */
const NO_PROBLEMS: readonly string[] = [];

export function checkOpShape(op: Op, position: number, section: Section): readonly string[] {
  const row: OpKindRow | undefined = OP_KINDS[op.kind];
  if (row === undefined) return [`kind ${op.kind} is not in the op table`];
  const part = section.parts.find(({ start, end }) => start <= position && position < end);
  const problems: string[] = [];
  if (op.id !== position) problems.push(`has id ${op.id} at position ${position}`);
  if (op.stream !== row.stream) problems.push(`runs on ${op.stream}, its kind on ${row.stream}`);
  if (part === undefined) problems.push('belongs to no part of its section');
  for (const group of GROUPS) problems.push(...checkCount(op, group, row));
  if (pairs(row) && op.reads.length !== op.writes.length) problems.push(`reads ${op.reads.length} views but writes ${op.writes.length}`);
  for (const wait of op.waits) {
    if (part === undefined || wait < part.start || op.id <= wait)
      problems.push(`waits for op ${wait}, which is not an earlier op of its part`);
  }
  return problems;
}

function pairs(row: OpKindRow): boolean {
  return row.reads === 'many' && row.writes === 'many';
}

function checkCount(op: Op, group: (typeof GROUPS)[number], row: OpKindRow): readonly string[] {
  const declared = row[group];
  const count = op[group].length;
  if (declared === 'many') return count > 0 ? NO_PROBLEMS : [`${group} nothing`];
  return count === declared.length ? NO_PROBLEMS : [`${group} ${count} views, its kind ${declared.length} (${declared.join(', ')})`];
}

export function checkView(op: Op, access: Access, input: VerifyInput): readonly string[] {
  const buffer = input.buffers[access.buffer];
  if (buffer === undefined) return [`names buffer ${access.buffer}, and there are ${input.buffers.length}`];
  const lowest = lowestInstance(op, access);
  const highest = lowest + instanceSpan(access, input);
  const { start, end } = access.rows;
  const rows = buffer.shape[0] ?? 0;
  const arena = input.arenas[buffer.pool];
  const problems: string[] = [];
  if (!(0 <= start && start < end && end <= rows))
    problems.push(`${accessToText(access, input.buffers)} is outside the ${buffer.shape[0]} rows of ${buffer.name}`);
  if (!(0 <= lowest && highest < buffer.instances))
    problems.push(`${accessToText(access, input.buffers)} names instance ${highest} of ${buffer.instances}`);
  if (!(buffer.offset >= 0 && buffer.offset + buffer.instances * buffer.instanceBytes <= arena))
    problems.push(`${buffer.name} does not lie in the ${buffer.pool} arena of ${arena} bytes`);
  if (!(buffer.instanceBytes >= rows * rowBytes(buffer))) problems.push(`the instances of ${buffer.name} overlap`);
  if (!poolAllowed(op, access, buffer.pool))
    problems.push(`${accessToText(access, input.buffers)} is in the ${buffer.pool} arena, where ${op.kind} may not touch it`);
  return problems;
}

function poolAllowed(op: Op, access: Access, pool: Pool): boolean {
  if (op.kind === 'fetch') return pool === (op.reads.includes(access) ? 'host' : 'hbm');
  if (op.kind === 'offload') return pool === (op.reads.includes(access) ? 'hbm' : 'host');
  return pool === 'hbm';
}

export function rowBytes({ dtype, shape }: Buffer): number {
  let bytes = DTYPE_BYTES[dtype];
  for (let dim = 1; dim < shape.length; dim++) bytes *= shape[dim] ?? 1;
  return bytes;
}

/** The first instance that the access can name over all segments. */
function lowestInstance(op: Op, { bind, index }: Access): number {
  return bind === 'layer' ? index + op.layerSlot : index;
}

/** From the first to the last instance that the access can name. */
function instanceSpan({ bind }: Access, { numSegments, segmentLayers }: VerifyInput): number {
  if (bind === 'fixed') return 0;
  return bind === 'segment' ? numSegments - 1 : (numSegments - 1) * segmentLayers;
}

/** Byte range of an access in its arena when the section runs for `segment`. */
export function byteRange(
  op: Op,
  access: Access,
  buffers: readonly Buffer[],
  segment: number,
  segmentLayers: number,
): { readonly start: number; readonly end: number; readonly pool: Pool } {
  const buffer = buffers[access.buffer] as Buffer;
  const offset = buffer.offset + (firstInstance(op, access, segment, segmentLayers) + access.index) * buffer.instanceBytes;
  const bytes = rowBytes(buffer);
  return { pool: buffer.pool, start: offset + access.rows.start * bytes, end: offset + access.rows.end * bytes };
}

function firstInstance(op: Op, { bind }: Access, segment: number, segmentLayers: number): number {
  if (bind === 'fixed') return 0;
  return bind === 'segment' ? segment : segment * segmentLayers + op.layerSlot;
}
