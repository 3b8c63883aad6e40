/**
 * The memory that one call touches, cut at every border of its views: each view is then a run of whole cells, and what is true of one
 * byte of a cell is true of all. The arenas of all pools are one address space.
 */
import { bufferAt, type Context } from './context.js';
import type { FlatSection } from './flat.js';
import type { Slot } from './viewTable.js';

export interface Cells {
  readonly count: number;
  /** Sorted byte addresses; cell i is [edges[i], edges[i + 1]). */
  readonly edges: Float64Array;
  /** By view its first cell and one past its last. */
  readonly low: Int32Array;
  readonly high: Int32Array;
}

/** Cells of a call with these arguments. `whole`: slots whose whole instances are cut out too. */
export function cellsOf({ views }: FlatSection, args: readonly number[], whole: readonly Slot[], context: Context): Cells {
  const { size } = views;
  const borders = new Float64Array(2 * (size + whole.length));
  for (let view = 0; view < size; view++) {
    const slot = views.slots[views.slot[view] as number] as Slot;
    const first = slotAddress(slot, args, context);
    const bytes = context.rowBytes[slot.buffer] as number;
    borders[2 * view] = first + (views.start[view] as number) * bytes;
    borders[2 * view + 1] = first + (views.end[view] as number) * bytes;
  }
  for (const [i, slot] of whole.entries()) {
    borders[2 * (size + i)] = slotAddress(slot, args, context);
    borders[2 * (size + i) + 1] = slotEnd(slot, args, context);
  }
  const edges = distinct(borders);
  const low = new Int32Array(size);
  const high = new Int32Array(size);
  for (let view = 0; view < size; view++) {
    low[view] = edgeAt(edges, borders[2 * view] as number);
    high[view] = edgeAt(edges, borders[2 * view + 1] as number);
  }
  return { count: Math.max(0, edges.length - 1), edges, low, high };
}

/** Address of the first byte of the instance that a slot is bound to. */
export function slotAddress({ buffer, param, index }: Slot, args: readonly number[], context: Context): number {
  const instance = index + (param < 0 ? 0 : (args[param] ?? 0));
  return (context.base[buffer] as number) + instance * bufferAt(context, buffer).instanceBytes;
}

/** One past the last byte of its rows. */
export function slotEnd(slot: Slot, args: readonly number[], context: Context): number {
  const rows = bufferAt(context, slot.buffer).shape[0] ?? 0;
  return slotAddress(slot, args, context) + rows * (context.rowBytes[slot.buffer] as number);
}

/** The values in ascending order, each once. */
export function distinct(values: Float64Array): Float64Array {
  const sorted = values.slice().sort();
  let count = 0;
  for (let i = 0; i < sorted.length; i++) {
    if (i === 0 || sorted[i] !== sorted[i - 1]) sorted[count++] = sorted[i] as number;
  }
  return sorted.slice(0, count);
}

/** Position of an address among edges that hold it. */
export function edgeAt(edges: Float64Array, address: number): number {
  let low = 0;
  let high = edges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((edges[middle] as number) < address) low = middle + 1;
    else high = middle;
  }
  return low;
}
