/** Equal accesses of a plan, numbered once: a hash table over columns, since a large plan has millions of views and few accesses. */
import type { Access } from '../schedule/op.js';
import { ColumnWriter, type RawColumn } from './columns.js';

export class AccessTable {
  readonly #columns = {
    buffer: new ColumnWriter('accessBuffer'),
    start: new ColumnWriter('accessStart'),
    end: new ColumnWriter('accessEnd'),
    param: new ColumnWriter('accessParam'),
    index: new ColumnWriter('accessIndex'),
  };
  /** Number of an access plus one by hash, 0 where free; at most half full. */
  #slots = new Int32Array(1024);

  get length(): number {
    return this.#columns.buffer.length;
  }

  /** The number of an access, the next free one for an access that is new. */
  numberOf(access: Access): number {
    const slot = this.#slotOf(access);
    const known = this.#slots[slot] ?? 0;
    if (known > 0) return known - 1;
    const { buffer, start, end, param, index } = this.#columns;
    buffer.push(access.buffer);
    start.push(access.rows.start);
    end.push(access.rows.end);
    param.push(access.param);
    index.push(access.index);
    this.#slots[slot] = this.length;
    if (2 * this.length > this.#slots.length) this.#grow();
    return this.length - 1;
  }

  finish(): readonly RawColumn[] {
    return Object.values(this.#columns).map((column) => column.finish());
  }

  /** Where the access is, or would be. */
  #slotOf(access: Access): number {
    const mask = this.#slots.length - 1;
    let slot = hash(access) & mask;
    for (;;) {
      const known = this.#slots[slot] ?? 0;
      if (known === 0 || this.#equals(known - 1, access)) return slot;
      slot = (slot + 1) & mask;
    }
  }

  #equals(number: number, { buffer, rows, param, index }: Access): boolean {
    const columns = this.#columns;
    return (
      columns.start.at(number) === rows.start &&
      columns.buffer.at(number) === buffer &&
      columns.index.at(number) === index &&
      columns.param.at(number) === param &&
      columns.end.at(number) === rows.end
    );
  }

  #grow(): void {
    this.#slots = new Int32Array(2 * this.#slots.length);
    const { buffer, start, end, param, index } = this.#columns;
    for (let i = 0; i < this.length; i++) {
      const access = { buffer: buffer.at(i), rows: { start: start.at(i), end: end.at(i) }, param: param.at(i), index: index.at(i) };
      this.#slots[this.#slotOf(access)] = i + 1;
    }
  }
}

/** Rows are mostly multiples of a power of two: every number is multiplied by an odd one, and high bits are folded back onto low ones. */
function hash({ buffer, rows, param, index }: Access): number {
  let value = Math.imul(buffer + 1, 0x9e3779b1) ^ Math.imul(rows.start, 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d) ^ Math.imul(rows.end, 0xc2b2ae35);
  value = Math.imul(value ^ (value >>> 13), 0x297a2d39) ^ Math.imul(index + 1, 0x27d4eb2f) ^ Math.imul(param + 2, 0x165667b1);
  return (value ^ (value >>> 16)) >>> 0;
}
