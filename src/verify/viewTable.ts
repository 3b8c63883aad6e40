/** Distinct accesses of a section, numbered in order of first use; a hash table over columns, as sections have a million accesses. */
import type { Access } from '../schedule/op.js';

/** What a call binds to an instance: all views with this buffer, parameter and index are rows of one instance. */
export interface Slot {
  readonly buffer: number;
  /** -1: none. */
  readonly param: number;
  readonly index: number;
  /** First op that uses it. */
  readonly op: number;
}

export class ViewTable {
  readonly buffer: number[] = [];
  readonly start: number[] = [];
  readonly end: number[] = [];
  readonly slot: number[] = [];
  /** First op that uses the view. */
  readonly op: number[] = [];
  readonly slots: Slot[] = [];
  private readonly slotNumbers = new Map<string, number>();
  /** Open addressing: view number + 1, 0 where free. */
  private cells = new Int32Array(1024);

  get size(): number {
    return this.buffer.length;
  }

  numberOf(access: Access, op: number): number {
    const mask = this.cells.length - 1;
    for (let at = hash(access) & mask; ; at = (at + 1) & mask) {
      const view = (this.cells[at] as number) - 1;
      if (view < 0) return this.add(access, op, at);
      if (this.isAt(view, access)) return view;
    }
  }

  /** The view as an access. */
  access(view: number): Access {
    const { buffer, param, index } = this.slots[this.slot[view] as number] as Slot;
    return { buffer, param, index, rows: { start: this.start[view] as number, end: this.end[view] as number } };
  }

  private isAt(view: number, { buffer, rows, param, index }: Access): boolean {
    if (this.buffer[view] !== buffer || this.start[view] !== rows.start || this.end[view] !== rows.end) return false;
    const slot = this.slots[this.slot[view] as number] as Slot;
    return slot.param === param && slot.index === index;
  }

  private add(access: Access, op: number, at: number): number {
    const { buffer, rows, param, index } = access;
    const view = this.buffer.push(buffer) - 1;
    this.start.push(rows.start);
    this.end.push(rows.end);
    this.slot.push(this.slotNumber(buffer, param, index, op));
    this.op.push(op);
    this.cells[at] = view + 1;
    if (this.size * 2 > this.cells.length) this.grow();
    return view;
  }

  private slotNumber(buffer: number, param: number, index: number, op: number): number {
    const key = `${buffer}/${param}/${index}`;
    const known = this.slotNumbers.get(key);
    if (known !== undefined) return known;
    const number = this.slots.push({ buffer, param, index, op }) - 1;
    this.slotNumbers.set(key, number);
    return number;
  }

  private grow(): void {
    this.cells = new Int32Array(this.cells.length * 4);
    const mask = this.cells.length - 1;
    for (let view = 0; view < this.size; view++) {
      let at = hash(this.access(view)) & mask;
      while (this.cells[at] !== 0) at = (at + 1) & mask;
      this.cells[at] = view + 1;
    }
  }
}

function hash({ buffer, rows, param, index }: Access): number {
  let mixed = Math.imul(buffer + 1, 0x9e3779b1) ^ Math.imul(rows.start | 0, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0xc2b2ae35) ^ Math.imul(rows.end | 0, 0x27d4eb2f);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0x165667b1) ^ Math.imul(param + 1, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b);
  return mixed ^ (mixed >>> 16);
}
