/** What the catalog reads of an op and a buffer. Structural, so that the catalog stands before the schedule. */
import { DTYPE_BYTES, type Dtype } from '../spec/dtype.js';

export interface RowRange {
  readonly start: number;
  readonly end: number;
}

export interface AccessShape {
  readonly buffer: number;
  readonly rows: RowRange;
}

export interface OpShape {
  readonly kind: string;
  /** Global token ranges. */
  readonly tokens: RowRange;
  readonly kv?: RowRange;
  readonly reads: readonly AccessShape[];
  readonly writes: readonly AccessShape[];
  readonly accumulates: readonly AccessShape[];
}

export interface BufferShape {
  readonly id: number;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

export function rowsOf(range: RowRange | undefined): number {
  return range === undefined ? 0 : range.end - range.start;
}

/** Bytes of the views of one group of an op's accesses. */
export function viewBytes(accesses: readonly AccessShape[], buffers: readonly BufferShape[]): number {
  return accesses.reduce((sum, access) => sum + rowsOf(access.rows) * rowBytes(bufferOf(access, buffers)), 0);
}

function bufferOf(access: AccessShape, buffers: readonly BufferShape[]): BufferShape {
  const buffer = buffers[access.buffer];
  if (buffer === undefined) throw new RangeError(`no buffer ${access.buffer} among ${buffers.length}`);
  return buffer;
}

function rowBytes({ dtype, shape }: BufferShape): number {
  return shape.slice(1).reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
}
