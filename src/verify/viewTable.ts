/** Distinct accesses of a section, numbered in order of first use, with what is true of each as columns. */
import { AccessNumbers } from '../schedule/accessNumbers.js';
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
  private readonly numbers = new AccessNumbers();

  get size(): number {
    return this.buffer.length;
  }

  /** `op`: the one that names it. */
  numberOf(access: Access, op: number): number {
    const view = this.numbers.numberOf(access);
    if (view === this.size) this.add(access, op);
    return view;
  }

  /** The view as an access. */
  access(view: number): Access {
    return this.numbers.distinct[view] as Access;
  }

  private add({ buffer, rows, param, index }: Access, op: number): void {
    this.buffer.push(buffer);
    this.start.push(rows.start);
    this.end.push(rows.end);
    this.slot.push(this.slotNumber(buffer, param, index, op));
    this.op.push(op);
  }

  private slotNumber(buffer: number, param: number, index: number, op: number): number {
    const key = `${buffer}/${param}/${index}`;
    const known = this.slotNumbers.get(key);
    if (known !== undefined) return known;
    const number = this.slots.push({ buffer, param, index, op }) - 1;
    this.slotNumbers.set(key, number);
    return number;
  }
}
