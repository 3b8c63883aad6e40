/** The op columns of an encoded plan: names, element types and order, and their little-endian bytes. Twin of python/fpdt/plan. */

/** What a column's elements are. Numbers of 64 bits are safe integers on this side. */
interface ElementType {
  readonly bytes: number;
  readonly min: number;
  readonly max: number;
  /** Little-endian elements, on little-endian machines; the only ones that Node runs on here. */
  readonly pack: (values: ArrayLike<number>) => ArrayBufferView;
  readonly get: (view: DataView, offset: number) => number;
}

const HALF = 2 ** 32;

const ELEMENTS = {
  uint8: { bytes: 1, min: 0, max: 0xff, pack: (values) => new Uint8Array(values), get: (view, at) => view.getUint8(at) },
  uint16: { bytes: 2, min: 0, max: 0xffff, pack: (values) => new Uint16Array(values), get: (view, at) => view.getUint16(at, true) },
  int16: { bytes: 2, min: -0x8000, max: 0x7fff, pack: (values) => new Int16Array(values), get: (view, at) => view.getInt16(at, true) },
  int32: {
    bytes: 4,
    min: -(2 ** 31),
    max: 2 ** 31 - 1,
    pack: (values) => new Int32Array(values),
    get: (view, at) => view.getInt32(at, true),
  },
  int64: {
    bytes: 8,
    min: Number.MIN_SAFE_INTEGER,
    max: Number.MAX_SAFE_INTEGER,
    // Two halves, not a BigInt: the same bytes without making an object for each of a few million elements.
    pack: (values) => {
      const halves = new Int32Array(2 * values.length);
      for (let i = 0; i < values.length; i++) {
        const value = values[i] ?? 0;
        halves[2 * i] = value | 0;
        halves[2 * i + 1] = Math.floor(value / HALF);
      }
      return halves;
    },
    get: (view, at) => view.getInt32(at + 4, true) * HALF + view.getUint32(at, true),
  },
} as const satisfies Record<string, ElementType>;

export type ColumnDtype = keyof typeof ELEMENTS;
export const COLUMN_DTYPES = Object.keys(ELEMENTS) as [ColumnDtype, ...ColumnDtype[]];

/**
 * Element types by column name, in wire order. `opViews` and `opWaits` are CSR offsets: one more element than ops. A view is the
 * index of an access; accesses are interned over the whole plan. What an op does not read or write it accumulates into.
 */
export const COLUMNS = {
  opKind: 'uint8',
  opStream: 'uint8',
  opTokens: 'int64',
  opKv: 'int64',
  opAttribute: 'int32',
  opScratch: 'int64',
  opViews: 'int32',
  opNumReads: 'uint16',
  opNumWrites: 'uint16',
  view: 'int32',
  opWaits: 'int32',
  wait: 'int32',
  accessBuffer: 'int32',
  accessStart: 'int64',
  accessEnd: 'int64',
  accessParam: 'int16',
  accessIndex: 'int32',
} as const satisfies Record<string, ColumnDtype>;
export type ColumnName = keyof typeof COLUMNS;
export const COLUMN_NAMES = Object.keys(COLUMNS) as [ColumnName, ...ColumnName[]];

export interface ColumnDescriptor {
  readonly name: ColumnName;
  readonly dtype: ColumnDtype;
  /** In elements. */
  readonly length: number;
}

/** One column with its raw little-endian bytes. */
export interface RawColumn extends ColumnDescriptor {
  readonly data: Buffer;
}

/** Throws a RangeError for a number that the column's type cannot hold. */
export function packColumn(name: ColumnName, values: ArrayLike<number>): RawColumn {
  const dtype = COLUMNS[name];
  const { min, max, pack } = ELEMENTS[dtype];
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (value >= min && value <= max && Number.isInteger(value)) continue;
    throw new RangeError(`column ${name} of ${dtype} cannot hold ${value} (element ${i})`);
  }
  const { buffer, byteLength } = pack(values);
  return { name, dtype, length: values.length, data: Buffer.from(buffer, 0, byteLength) };
}

export function bytesOf({ dtype, length }: Pick<ColumnDescriptor, 'dtype' | 'length'>): number {
  return length * ELEMENTS[dtype].bytes;
}

/** The numbers of a column; 64-bit ones as floats. Throws a RangeError for an element that is no safe integer. */
export function unpackColumn({ name, dtype, length, data }: RawColumn): Float64Array | Int32Array {
  const { bytes, get } = ELEMENTS[dtype];
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const values = dtype === 'int64' ? new Float64Array(length) : new Int32Array(length);
  for (let i = 0; i < length; i++) {
    const value = get(view, i * bytes);
    if (!Number.isSafeInteger(value)) throw new RangeError(`element ${i} of column ${name} is beyond 2^53`);
    values[i] = value;
  }
  return values;
}
