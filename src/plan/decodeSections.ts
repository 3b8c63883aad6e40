/** The ops of all sections from the columns of a plan, each number checked before it becomes a reference. */
import type { OpKind } from '../catalog/ops/index.js';
import type { Access, Op, Range, Section } from '../schedule/op.js';
import { type ColumnName, type RawColumn, unpackColumn } from './columns.js';
import type { PlanHeader, SectionHeader } from './header.js';
import { damaged } from './planErrors.js';

type Values = Readonly<Record<ColumnName, Float64Array | Int32Array>>;

/** Throws an FpdtError `plan-damaged` for a column that is too short, does not ascend or names what is not there. */
export function decodeSections(header: PlanHeader, columns: readonly RawColumn[]): readonly Section[] {
  const values = unpack(columns);
  const numOps = header.sections.reduce((sum, section) => sum + section.numOps, 0);
  checkLengths(values, numOps);
  const reader = new OpReader(header, values);
  let start = 0;
  return header.sections.map((section) => {
    const ops: Op[] = [];
    for (let id = 0; id < section.numOps; id++) ops.push(reader.read(start + id, id, section));
    start += section.numOps;
    return { name: section.name, params: section.params, ops };
  });
}

function unpack(columns: readonly RawColumn[]): Values {
  try {
    return Object.fromEntries(columns.map((column) => [column.name, unpackColumn(column)])) as unknown as Values;
  } catch (cause) {
    throw damaged((cause as Error).message);
  }
}

const PER_OP = { opKind: 1, opStream: 1, opTokens: 2, opKv: 2, opAttribute: 1, opScratch: 1, opNumReads: 1, opNumWrites: 1 } as const;

function checkLengths(values: Values, numOps: number): void {
  const check = (name: ColumnName, expected: number, why: string): void => {
    if (values[name].length !== expected) throw damaged(`column ${name} has ${values[name].length} values, ${why} need ${expected}`);
  };
  for (const [name, width] of Object.entries(PER_OP)) check(name as ColumnName, width * numOps, `${numOps} ops`);
  for (const [offsets, target] of [
    ['opViews', 'view'],
    ['opWaits', 'wait'],
  ] as const) {
    check(offsets, numOps + 1, `${numOps} ops`);
    checkAscending(offsets, values[offsets]);
    check(target, values[offsets].at(-1) ?? 0, `the offsets of ${offsets}`);
  }
  const numAccesses = values.accessBuffer.length;
  for (const name of ['accessStart', 'accessEnd', 'accessParam', 'accessIndex'] as const)
    check(name, numAccesses, `${numAccesses} accesses`);
}

function checkAscending(name: string, offsets: Float64Array | Int32Array): void {
  let before = 0;
  for (const [i, offset] of offsets.entries()) {
    if (i === 0 ? offset !== 0 : offset < before) throw damaged(`the offsets of column ${name} do not ascend from 0`);
    before = offset;
  }
}

const NOTHING: readonly never[] = [];

/** Makes ops out of rows of the columns. Equal accesses, ranges and empty lists are one object: a plan may have half a million ops. */
class OpReader {
  readonly #header: PlanHeader;
  readonly #values: Values;
  readonly #accesses: readonly Access[];
  readonly #ranges = new Map<number, Map<number, Range>>();

  constructor(header: PlanHeader, values: Values) {
    this.#header = header;
    this.#values = values;
    this.#accesses = Array.from({ length: values.accessBuffer.length }, (_, number) => this.#access(number));
  }

  /** `row`: of the columns; `id`: of the op in its section. */
  read(row: number, id: number, section: SectionHeader): Op {
    const { opKind, opStream, opTokens, opKv, opAttribute, opScratch, opViews, opNumReads, opNumWrites } = this.#values;
    const { opKinds, streams, attributes } = this.#header;
    const end = at(opViews, row + 1);
    const firstWrite = at(opViews, row) + at(opNumReads, row);
    const firstAccumulate = firstWrite + at(opNumWrites, row);
    const kind = opKinds[at(opKind, row)];
    const stream = streams[at(opStream, row)];
    const attribute = at(opAttribute, row);
    if (firstAccumulate > end) throw bad(id, section, 'reads and writes more views than it has');
    if (kind === undefined) throw bad(id, section, `is of kind number ${at(opKind, row)} of ${opKinds.length}`);
    if (stream === undefined) throw bad(id, section, `runs on stream number ${at(opStream, row)} of ${streams.length}`);
    if (attribute >= attributes.length) throw bad(id, section, `has attribute number ${attribute} of ${attributes.length}`);
    const kvStart = at(opKv, 2 * row);
    return {
      id,
      kind: kind.name as OpKind,
      stream,
      tokens: this.#range(at(opTokens, 2 * row), at(opTokens, 2 * row + 1)),
      ...(kvStart < 0 ? undefined : { kv: this.#range(kvStart, at(opKv, 2 * row + 1)) }),
      ...(attribute < 0 ? undefined : { attribute }),
      reads: this.#views(at(opViews, row), firstWrite, id, section),
      writes: this.#views(firstWrite, firstAccumulate, id, section),
      accumulates: this.#views(firstAccumulate, end, id, section),
      waits: this.#waits(row, id, section),
      scratchBytes: at(opScratch, row),
    };
  }

  #views(from: number, to: number, id: number, section: SectionHeader): readonly Access[] {
    if (from === to) return NOTHING;
    const numParams = section.params.length;
    const views: Access[] = [];
    for (let i = from; i < to; i++) {
      const number = at(this.#values.view, i);
      const access = this.#accesses[number];
      if (access === undefined) throw bad(id, section, `names access number ${number} of ${this.#accesses.length}`);
      if (access.param >= numParams) throw bad(id, section, `names parameter number ${access.param}, the section has ${numParams}`);
      views.push(access);
    }
    return fitted(views);
  }

  #waits(row: number, id: number, section: SectionHeader): readonly number[] {
    const { opWaits, wait } = this.#values;
    const [from, to] = [at(opWaits, row), at(opWaits, row + 1)];
    if (from === to) return NOTHING;
    const waits: number[] = [];
    for (let i = from; i < to; i++) {
      const other = at(wait, i);
      if (other < 0 || other >= id) throw bad(id, section, `waits for op ${other}, which is not an earlier one of its section`);
      waits.push(other);
    }
    return fitted(waits);
  }

  #access(number: number): Access {
    const { accessBuffer, accessStart, accessEnd, accessParam, accessIndex } = this.#values;
    const access = {
      buffer: at(accessBuffer, number),
      rows: this.#range(at(accessStart, number), at(accessEnd, number)),
      param: at(accessParam, number),
      index: at(accessIndex, number),
    };
    const buffer = this.#header.buffers[access.buffer];
    if (buffer === undefined) throw damaged(`access ${number} names buffer ${access.buffer} of ${this.#header.buffers.length}`);
    const { start, end } = access.rows;
    const numRows = buffer.shape[0] ?? 0;
    if (!(0 <= start && start < end && end <= numRows)) {
      throw damaged(`access ${number} names rows [${start}:${end}) of ${buffer.name}, which has ${numRows}`);
    }
    if (access.param < -1) throw damaged(`access ${number} names parameter number ${access.param}`);
    return access;
  }

  #range(start: number, end: number): Range {
    const sameStart = this.#ranges.get(start) ?? new Map<number, Range>();
    this.#ranges.set(start, sameStart);
    const known = sameStart.get(end) ?? { start, end };
    sameStart.set(end, known);
    return known;
  }
}

/** A list that grew has room for many more; its slice has none, which is half of the memory of a large plan. */
function fitted<T>(list: readonly T[]): readonly T[] {
  return list.slice();
}

function bad(id: number, { name }: SectionHeader, problem: string): Error {
  return damaged(`op ${id} of ${name} ${problem}`);
}

/** An element whose index checkLengths has found to be there. */
function at(values: Float64Array | Int32Array, index: number): number {
  return values[index] as number;
}
