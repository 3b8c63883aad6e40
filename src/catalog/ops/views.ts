/** What the catalog reads of ops and buffers, and the bytes of their views. Structural, so that the catalog stands before the schedule. */
import { DTYPE_BYTES, type Dtype } from '../../spec/dtype.js';

export interface RowRange {
  readonly start: number;
  readonly end: number;
}

export interface AccessShape {
  readonly buffer: number;
  readonly rows: RowRange;
}

/** An op without its kind, which is the row that reads it. */
export interface OpViews {
  /** Global token ranges. */
  readonly tokens: RowRange;
  readonly kv?: RowRange;
  readonly reads: readonly AccessShape[];
  readonly writes: readonly AccessShape[];
  readonly accumulates: readonly AccessShape[];
}

export interface BufferShape {
  readonly dtype: Dtype;
  /** The first dimension is rows. */
  readonly shape: readonly number[];
}

export type MaskShape = { readonly kind: 'full' } | { readonly kind: 'causal' } | { readonly kind: 'window'; readonly window: number };

/** Absent: all groups. */
export interface HeadGroupShape {
  readonly groups: number;
  readonly group?: number;
}

export interface AttributeShape {
  readonly mask?: MaskShape;
  readonly tiles?: number;
  readonly heads?: HeadGroupShape;
}

export function rowsOf(range: RowRange | undefined): number {
  return range === undefined ? 0 : range.end - range.start;
}

/** Bytes of one row of a buffer. */
export function rowBytes({ dtype, shape }: BufferShape): number {
  let bytes = DTYPE_BYTES[dtype];
  for (let dim = 1; dim < shape.length; dim++) bytes *= shape[dim] ?? 1;
  return bytes;
}

/** Bytes of the views of one group of an op's accesses; `buffers` by their ids. */
export function viewBytes(accesses: readonly AccessShape[], buffers: readonly BufferShape[]): number {
  let bytes = 0;
  for (const { buffer, rows } of accesses) bytes += rowsOf(rows) * rowBytes(bufferAt(buffer, buffers));
  return bytes;
}

export function bufferAt(id: number, buffers: readonly BufferShape[]): BufferShape {
  const buffer = buffers[id];
  if (buffer === undefined) throw new RangeError(`no buffer ${id} among ${buffers.length}`);
  return buffer;
}
