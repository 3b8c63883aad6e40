/** What an op may look like on its own: its kind's row in the table, its waits, and the bounds of its views. */
import { DTYPE_BYTES } from '../spec/dtype.js';
import type { Buffer, Pool } from './buffer.js';
import { type Access, OP_KINDS, type Op, type OpKindRow, type Section } from './op.js';
import { accessToText } from './text.js';
import type { VerifyInput } from './verify.js';

export function checkOpShape(op: Op, position: number, section: Section): readonly string[] {
  const row: OpKindRow | undefined = OP_KINDS[op.kind];
  if (row === undefined) return [`kind ${op.kind} is not in the op table`];
  const part = section.parts.find(({ start, end }) => start <= position && position < end);
  return [
    ...(op.id === position ? [] : [`has id ${op.id} at position ${position}`]),
    ...(op.stream === row.stream ? [] : [`runs on ${op.stream}, its kind on ${row.stream}`]),
    ...(part === undefined ? ['belongs to no part of its section'] : []),
    ...(['reads', 'writes', 'accumulates'] as const).flatMap((group) => checkCount(op, group, row)),
    ...(pairs(row) && op.reads.length !== op.writes.length ? [`reads ${op.reads.length} views but writes ${op.writes.length}`] : []),
    ...op.waits.flatMap((wait) =>
      part !== undefined && part.start <= wait && wait < op.id ? [] : [`waits for op ${wait}, which is not an earlier op of its part`],
    ),
  ];
}

function pairs(row: OpKindRow): boolean {
  return row.reads === 'many' && row.writes === 'many';
}

function checkCount(op: Op, group: 'reads' | 'writes' | 'accumulates', row: OpKindRow): readonly string[] {
  const declared = row[group];
  if (declared === 'many') return op[group].length > 0 ? [] : [`${group} nothing`];
  return op[group].length === declared.length
    ? []
    : [`${group} ${op[group].length} views, its kind ${declared.length} (${declared.join(', ')})`];
}

export function checkView(op: Op, access: Access, input: VerifyInput): readonly string[] {
  const buffer = input.buffers[access.buffer];
  if (buffer === undefined) return [`names buffer ${access.buffer}, and there are ${input.buffers.length}`];
  const text = accessToText(access, input.buffers);
  const [lowest, highest] = instanceRange(op, access, input);
  const { start, end } = access.rows;
  const arena = input.arenas[buffer.pool];
  return [
    ...(0 <= start && start < end && end <= (buffer.shape[0] ?? 0)
      ? []
      : [`${text} is outside the ${buffer.shape[0]} rows of ${buffer.name}`]),
    ...(0 <= lowest && highest < buffer.instances ? [] : [`${text} names instance ${highest} of ${buffer.instances}`]),
    ...(buffer.offset >= 0 && buffer.offset + buffer.instances * buffer.instanceBytes <= arena
      ? []
      : [`${buffer.name} does not lie in the ${buffer.pool} arena of ${arena} bytes`]),
    ...(buffer.instanceBytes >= (buffer.shape[0] ?? 0) * rowBytes(buffer) ? [] : [`the instances of ${buffer.name} overlap`]),
    ...(poolAllowed(op, access, buffer.pool) ? [] : [`${text} is in the ${buffer.pool} arena, where ${op.kind} may not touch it`]),
  ];
}

function poolAllowed(op: Op, access: Access, pool: Pool): boolean {
  if (op.kind === 'fetch') return pool === (op.reads.includes(access) ? 'host' : 'hbm');
  if (op.kind === 'offload') return pool === (op.reads.includes(access) ? 'hbm' : 'host');
  return pool === 'hbm';
}

export function rowBytes(buffer: Buffer): number {
  return buffer.shape.slice(1).reduce((product, size) => product * size, DTYPE_BYTES[buffer.dtype]);
}

/** First and last instance the access can name over all segments. */
function instanceRange(op: Op, access: Access, { numSegments, segmentLayers }: VerifyInput): readonly [number, number] {
  if (access.bind === 'fixed') return [access.index, access.index];
  if (access.bind === 'segment') return [access.index, access.index + numSegments - 1];
  return [access.index + op.layerSlot, access.index + op.layerSlot + (numSegments - 1) * segmentLayers];
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
  const base = { fixed: 0, segment, layer: segment * segmentLayers + op.layerSlot }[access.bind];
  const offset = buffer.offset + (base + access.index) * buffer.instanceBytes;
  const bytes = rowBytes(buffer);
  return { pool: buffer.pool, start: offset + access.rows.start * bytes, end: offset + access.rows.end * bytes };
}
