/**
 * One call, op by op in the order of its section, over the cells of memory it touches: no two ops race, every byte that is read was
 * written earlier in the call through the same slot or is one of the slot's entry values, and exit values are whole at the end.
 */
import type { Op } from '../schedule/op.js';
import { type Cells, cellsOf, edgeAt, slotAddress, slotEnd } from './cells.js';
import { bufferAt, type Context } from './context.js';
import type { FlatSection } from './flat.js';
import { atOp, roleText, viewText } from './text.js';
import type { CallName } from './violation.js';
import type { Slot } from './viewTable.js';

const READS = 1;
const CHANGES = 2;

/** By cell the slot that first read its entry value where another slot did too. */
export interface SharedEntry {
  readonly cell: number;
  readonly slot: number;
}

export class CallReplay {
  readonly flat: FlatSection;
  readonly cells: Cells;
  /** By cell the slot that last touched it, that wrote it last, and that read what stood there on entry; -1 for none. */
  readonly toucher: Int32Array;
  readonly owner: Int32Array;
  readonly entryReader: Int32Array;
  readonly sharedEntries: SharedEntry[] = [];
  /** By cell and stream the last op that read it, and that changed it; -1 for none. */
  readonly lastRead: Int32Array;
  readonly lastChange: Int32Array;
  /** By cell and stream the phase of the stream's first read, and of its first change, counted from 1; 0 for none. */
  readonly firstRead: Uint8Array;
  readonly firstChange: Uint8Array;
  /**
   * By stream the phases of its work: a mask of the streams whose entry into the call surely comes before. It only grows, so that the
   * first touch of a cell is the one that knows least of what went before the call.
   */
  readonly phases: readonly number[][];
  private readonly args: readonly number[];
  private readonly call: CallName;
  private readonly context: Context;
  private readonly clocks: Int32Array;
  private readonly hasEntry: readonly boolean[];
  private readonly exits: readonly number[];
  private id = 0;
  private stream = 0;
  private phase = 0;
  private isReported = false;

  constructor(flat: FlatSection, args: readonly number[], call: CallName, context: Context) {
    const { slots } = flat.views;
    const { params } = flat.section;
    const isStep = ({ buffer }: Slot): boolean => bufferAt(context, buffer).scope === 'step';
    this.flat = flat;
    this.args = args;
    this.call = call;
    this.context = context;
    this.clocks = flat.clocks();
    this.hasEntry = slots.map((slot) => isStep(slot) && (slot.param < 0 || params[slot.param]?.entry !== undefined));
    this.exits = slots.flatMap(({ param }, slot) => (params[param]?.exit === undefined ? [] : [slot]));
    this.cells = cellsOf(
      flat,
      args,
      this.exits.map((slot) => slots[slot] as Slot),
      context,
    );
    const { count } = this.cells;
    this.toucher = new Int32Array(count).fill(-1);
    this.owner = new Int32Array(count).fill(-1);
    this.entryReader = new Int32Array(count).fill(-1);
    this.lastRead = new Int32Array(count * context.numStreams).fill(-1);
    this.lastChange = new Int32Array(count * context.numStreams).fill(-1);
    this.firstRead = new Uint8Array(count * context.numStreams);
    this.firstChange = new Uint8Array(count * context.numStreams);
    this.phases = Array.from({ length: context.numStreams }, () => []);
  }

  run(): this {
    const { firstRead, firstWrite, firstAccumulate, opViews, numOps, streams } = this.flat;
    const { violations } = this.context;
    for (let id = 0; id < numOps && !violations.isFull; id++) {
      this.id = id;
      this.stream = streams[id] as number;
      this.enterPhase();
      const reads = firstRead[id] as number;
      const writes = firstWrite[id] as number;
      const accumulates = firstAccumulate[id] as number;
      const end = firstRead[id + 1] as number;
      for (let i = reads; i < writes; i++) this.touch(opViews[i] as number, READS);
      for (let i = accumulates; i < end; i++) this.touch(opViews[i] as number, READS | CHANGES);
      for (let i = writes; i < accumulates; i++) this.touch(opViews[i] as number, CHANGES);
    }
    for (const slot of this.exits) this.checkExit(slot);
    return this;
  }

  /** The streams whose entry into the call comes before op `id`: its own, and those of which it knows some op to be complete. */
  entriesBefore(id: number): number {
    const { numStreams } = this.context;
    let mask = 1 << (this.flat.streams[id] as number);
    for (let t = 0; t < numStreams; t++) if ((this.clocks[id * numStreams + t] as number) >= 0) mask |= 1 << t;
    return mask;
  }

  private enterPhase(): void {
    const phases = this.phases[this.stream] as number[];
    const mask = this.entriesBefore(this.id);
    if (phases.at(-1) !== mask) phases.push(mask);
    this.phase = phases.length;
  }

  private touch(view: number, how: number): void {
    const { owner, clocks, id, stream, lastRead, lastChange } = this;
    const slot = this.flat.views.slot[view] as number;
    const end = this.cells.high[view] as number;
    const { numStreams } = this.context;
    const row = id * numStreams;
    this.isReported = false;
    for (let cell = this.cells.low[view] as number; cell < end; cell++) {
      const at = cell * numStreams;
      for (let t = 0; t < numStreams; t++) {
        if (t === stream) continue;
        const known = clocks[row + t] as number;
        if ((lastChange[at + t] as number) > known) this.reportRace(view, cell, lastChange[at + t] as number);
        else if ((how & CHANGES) !== 0 && (lastRead[at + t] as number) > known) this.reportRace(view, cell, lastRead[at + t] as number);
      }
      if ((how & READS) !== 0 && owner[cell] !== slot) this.readEntry(view, slot, cell);
      if ((how & CHANGES) !== 0) this.markChange(view, slot, cell, at + stream);
      else if ((lastRead[at + stream] as number) < 0) this.firstRead[at + stream] = this.phase;
      if ((how & CHANGES) === 0) lastRead[at + stream] = id;
      this.toucher[cell] = slot;
    }
  }

  private markChange(view: number, slot: number, cell: number, at: number): void {
    const { lastRead, lastChange, id } = this;
    if (lastRead[at] === id || lastChange[at] === id)
      this.report(`changes ${this.view(view)}, which shares bytes with another of its views`);
    if ((lastChange[at] as number) < 0) this.firstChange[at] = this.phase;
    lastChange[at] = id;
    this.owner[cell] = slot;
  }

  /** A read of what this call has not written through the slot: right where it is the slot's entry value, still untouched. */
  private readEntry(view: number, slot: number, cell: number): void {
    const owner = this.owner[cell] as number;
    if (owner >= 0) this.report(`reads ${this.view(view)}, whose bytes were overwritten through ${this.slotText(owner)}`);
    else if (this.hasEntry[slot] !== true) {
      this.report(`reads ${this.view(view)}, which nothing has written${this.entryHint(slot)}`);
      this.owner[cell] = slot;
    } else if (this.entryReader[cell] === -1) this.entryReader[cell] = slot;
    else if (this.entryReader[cell] !== slot) this.sharedEntries.push({ cell, slot });
  }

  private entryHint(slot: number): string {
    const { param, buffer } = this.flat.views.slots[slot] as Slot;
    if (bufferAt(this.context, buffer).scope === 'call') return ' in this call';
    return ` in this call, and its parameter ${this.flat.section.params[param]?.name} has no entry value`;
  }

  private checkExit(number: number): void {
    const { flat, cells, args, context } = this;
    const slot = flat.views.slots[number] as Slot;
    const exit = flat.section.params[slot.param]?.exit;
    const start = slotAddress(slot, args, context);
    const end = edgeAt(cells.edges, slotEnd(slot, args, context));
    for (let cell = edgeAt(cells.edges, start); cell < end; cell++) {
      const owner = this.owner[cell] as number;
      if (owner === number || exit === undefined) continue;
      const row = Math.floor(((cells.edges[cell] as number) - start) / (context.rowBytes[slot.buffer] as number));
      const why = owner >= 0 ? `row ${row} is overwritten through ${this.slotText(owner)}` : `row ${row} is not written`;
      const problem = `${this.slotText(number)} must hold ${roleText(exit)} (counted from the call's layer) when the call ends, and ${why}`;
      context.violations.add(atOp(flat, slot.op, problem, context, this.call));
      return;
    }
  }

  private reportRace(view: number, cell: number, rival: number): void {
    const { section, firstRead, opViews } = this.flat;
    const { kind, stream } = section.ops[rival] as Op;
    const { low, high } = this.cells;
    let shared = '';
    if (this.isReported) return;
    for (let i = firstRead[rival] as number; i < (firstRead[rival + 1] as number); i++) {
      const other = opViews[i] as number;
      if ((low[other] as number) <= cell && cell < (high[other] as number)) shared = this.view(other);
    }
    this.report(`races with op ${rival} ${kind} on ${stream}: ${this.view(view)} shares bytes with its ${shared}, and no wait orders them`);
  }

  /** Once for a view of an op: its cells tell the same story. */
  private report(problem: string): void {
    if (this.isReported) return;
    this.isReported = true;
    this.context.violations.add(atOp(this.flat, this.id, problem, this.context, this.call));
  }

  private view(view: number): string {
    return viewText(this.flat, view, this.context);
  }

  private slotText(slot: number): string {
    const { buffer, param, index } = this.flat.views.slots[slot] as Slot;
    const name = bufferAt(this.context, buffer).name;
    if (param < 0) return index === 0 ? name : `${name}#${index}`;
    return `${name}#${this.flat.section.params[param]?.name}${index === 0 ? '' : `+${index}`}`;
  }
}
