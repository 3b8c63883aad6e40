/** The memory that all calls of a micro-step touch, cut at the borders of their runs, and what stands in each piece. */
import type { PlacedCall } from './calls.js';
import { distinct, slotAddress } from './cells.js';
import { bufferAt, type Context } from './context.js';
import type { CallSummary } from './runs.js';
import type { Slot } from './viewTable.js';

/** A call of the plan's own, with what it does and the number of its first op in the micro-step. */
export interface RunCall extends PlacedCall {
  readonly summary: CallSummary;
  readonly firstOp: number;
}

export interface ProgramCells {
  readonly edges: Float64Array;
  /** By cell the instance that its bytes belong to, the number of the value they are, and the call that wrote it; -1 for none. */
  readonly instance: Int32Array;
  readonly value: Int32Array;
  readonly writer: Int32Array;
  /** By cell and stream the number of the last op that read it, and that changed it; -1 for none. */
  readonly lastRead: Float64Array;
  readonly lastChange: Float64Array;
}

export function programCells(calls: readonly RunCall[], context: Context): ProgramCells {
  const borders = new Float64Array(2 * calls.reduce((sum, { summary }) => sum + summary.runs.count, 0));
  let next = 0;
  for (const { call, flat, summary } of calls) {
    const addresses = flat.views.slots.map((slot: Slot) => slotAddress(slot, call.args, context));
    for (let run = 0; run < summary.runs.count; run++) {
      const address = addresses[summary.runs.slot[run] as number] as number;
      borders[next++] = address + (summary.runs.start[run] as number);
      borders[next++] = address + (summary.runs.end[run] as number);
    }
  }
  const edges = distinct(borders);
  return {
    edges,
    instance: new Int32Array(edges.length).fill(-1),
    value: new Int32Array(edges.length).fill(-1),
    writer: new Int32Array(edges.length).fill(-1),
    lastRead: new Float64Array(edges.length * context.numStreams).fill(-1),
    lastChange: new Float64Array(edges.length * context.numStreams).fill(-1),
  };
}

/** Numbers the instances of all buffers. */
export function instanceNumbers({ input: { buffers } }: Context): (slot: Slot, args: readonly number[]) => number {
  let next = 0;
  const first = buffers.map(({ instances }) => {
    const start = next;
    next += instances;
    return start;
  });
  return ({ buffer, param, index }, args) => (first[buffer] ?? 0) + index + (param < 0 ? 0 : (args[param] ?? 0));
}

/** The name of the buffer that an instance number belongs to. */
export function instanceName(number: number, { input: { buffers } }: Context): string {
  let left = number;
  for (const { name, instances } of buffers) {
    if (left < instances) return instances === 1 ? name : `${name}#${left}`;
    left -= instances;
  }
  return `instance ${number}`;
}

/** Rows of a run of bytes in a slot's buffer, as text: `x#3[0:64)`. */
export function rowsText(slot: Slot, args: readonly number[], start: number, end: number, context: Context): string {
  const { name, instances } = bufferAt(context, slot.buffer);
  const bytes = context.rowBytes[slot.buffer] as number;
  const instance = slot.index + (slot.param < 0 ? 0 : (args[slot.param] ?? 0));
  return `${name}${instances === 1 ? '' : `#${instance}`}[${Math.floor(start / bytes)}:${Math.ceil(end / bytes)})`;
}
