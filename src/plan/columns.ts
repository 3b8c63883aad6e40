/** The op columns of an encoded plan: names, element types and order. Twin of python/fpdt/plan.py. */

export type ColumnDtype = 'uint8' | 'int32' | 'float64';
export const COLUMN_BYTES: Readonly<Record<ColumnDtype, number>> = { uint8: 1, int32: 4, float64: 8 };

/** Views an op has, in column order: the columns of a group are prefixed with its name. */
export const ACCESS_GROUPS = [
  { name: 'read', field: 'reads', offsets: 'opReads' },
  { name: 'write', field: 'writes', offsets: 'opWrites' },
  { name: 'accumulate', field: 'accumulates', offsets: 'opAccumulates' },
] as const;
export type AccessGroup = (typeof ACCESS_GROUPS)[number];

export const BINDS = ['fixed', 'segment', 'layer'] as const;

/** Element types by column name, in wire order. `opReads` and its like are CSR offsets: one more element than ops. */
export const COLUMNS = {
  opKind: 'uint8',
  opStream: 'uint8',
  opLayerSlot: 'uint8',
  opTokens: 'int32',
  opKv: 'int32',
  opScratch: 'float64',
  opReads: 'int32',
  opWrites: 'int32',
  opAccumulates: 'int32',
  opWaits: 'int32',
  readBuffer: 'int32',
  readStart: 'int32',
  readEnd: 'int32',
  readBind: 'uint8',
  readIndex: 'int32',
  writeBuffer: 'int32',
  writeStart: 'int32',
  writeEnd: 'int32',
  writeBind: 'uint8',
  writeIndex: 'int32',
  accumulateBuffer: 'int32',
  accumulateStart: 'int32',
  accumulateEnd: 'int32',
  accumulateBind: 'uint8',
  accumulateIndex: 'int32',
  wait: 'int32',
} as const satisfies Record<string, ColumnDtype>;
export type ColumnName = keyof typeof COLUMNS;
export const COLUMN_NAMES = Object.keys(COLUMNS) as readonly ColumnName[];

export interface ColumnDescriptor {
  readonly name: ColumnName;
  readonly dtype: ColumnDtype;
  /** In elements. */
  readonly length: number;
}

/** One column with its raw little-endian bytes. */
export interface EncodedColumn extends ColumnDescriptor {
  readonly data: Buffer;
}

/** Numbers of a column before they become bytes. Throws a RangeError for a number that its type cannot hold. */
export function packColumn(name: ColumnName, values: readonly number[]): EncodedColumn {
  const dtype = COLUMNS[name];
  const data = Buffer.alloc(values.length * COLUMN_BYTES[dtype]);
  values.forEach((value, i) => {
    if (dtype === 'uint8') data.writeUInt8(value, i);
    else if (dtype === 'int32') data.writeInt32LE(value, i * 4);
    else data.writeDoubleLE(value, i * 8);
  });
  return { name, dtype, length: values.length, data };
}

export function unpackColumn({ dtype, data, length }: Pick<EncodedColumn, 'dtype' | 'data' | 'length'>): readonly number[] {
  return Array.from({ length }, (_, i) => {
    if (dtype === 'uint8') return data.readUInt8(i);
    if (dtype === 'int32') return data.readInt32LE(i * 4);
    return data.readDoubleLE(i * 8);
  });
}
