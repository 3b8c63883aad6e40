/**
 * One call, op by op in the order of its section, over the cells of memory it touches: no two ops race, every byte that is read was
 * written earlier in the call through the same slot or is one of the slot's entry values, and exit values are whole at the end.
 */
import type { Op } from '../schedule/op.js';
import { type CallFrame, slotText } from './callFrame.js';
import { bufferAt } from './context.js';
import { atOp, viewText } from './text.js';
import type { Slot } from './viewTable.js';

const READS = 1;
const CHANGES = 2;

/** What a call leaves behind. */
export interface Replayed {
  /** By cell the slot that last touched it, that wrote it last, and that read what stood there on entry; -1 for none. */
  readonly toucher: Int32Array;
  readonly owner: Int32Array;
  readonly entryReader: Int32Array;
  /** By cell the slots that read its entry value after another did. */
  readonly sharedEntries: readonly SharedEntry[];
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
  readonly phases: readonly (readonly number[])[];
  /** By stream; undefined where the section has no op on it. */
  readonly tails: readonly (Tail | undefined)[];
}

export interface SharedEntry {
  readonly cell: number;
  readonly slot: number;
}

/** How far the work of a stream knows the others' when the call ends. */
export interface Tail {
  /** Streams whose entry into the call comes before the stream's last op. */
  readonly entries: number;
  /** By stream the last op of the call known to be complete, its own last op for itself; -1 for none. */
  readonly ops: readonly number[];
}

/** Reports what is wrong. Where nothing is, native/replay.cc finds the same. */
export function replayCall(frame: CallFrame): Replayed {
  return new CallReplay(frame).run();
}

class CallReplay {
  private readonly frame: CallFrame;
  private readonly toucher: Int32Array;
  private readonly owner: Int32Array;
  private readonly entryReader: Int32Array;
  private readonly sharedEntries: SharedEntry[] = [];
  private readonly lastRead: Int32Array;
  private readonly lastChange: Int32Array;
  private readonly firstRead: Uint8Array;
  private readonly firstChange: Uint8Array;
  private readonly phases: readonly number[][];
  private readonly clocks: Int32Array;
  private id = 0;
  private stream = 0;
  private phase = 0;
  private isReported = false;

  constructor(frame: CallFrame) {
    const { flat, context, cells } = frame;
    const { count } = cells;
    this.frame = frame;
    this.clocks = flat.clocks();
    this.toucher = new Int32Array(count).fill(-1);
    this.owner = new Int32Array(count).fill(-1);
    this.entryReader = new Int32Array(count).fill(-1);
    this.lastRead = new Int32Array(count * context.numStreams).fill(-1);
    this.lastChange = new Int32Array(count * context.numStreams).fill(-1);
    this.firstRead = new Uint8Array(count * context.numStreams);
    this.firstChange = new Uint8Array(count * context.numStreams);
    this.phases = Array.from({ length: context.numStreams }, () => []);
  }

  run(): Replayed {
    const { flat, context } = this.frame;
    const { firstRead, firstWrite, firstAccumulate, opViews, numOps, streams } = flat;
    const { violations } = context;
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
    const { toucher, owner, entryReader, sharedEntries, lastRead, lastChange, phases } = this;
    const { firstRead: readPhase, firstChange: changePhase } = this;
    const first = { firstRead: readPhase, firstChange: changePhase };
    return { toucher, owner, entryReader, sharedEntries, lastRead, lastChange, ...first, phases, tails: this.tails() };
  }

  private tails(): readonly (Tail | undefined)[] {
    const { flat, context } = this.frame;
    const { numStreams } = context;
    return Array.from({ length: numStreams }, (_, stream): Tail | undefined => {
      const last = flat.streams.lastIndexOf(stream);
      if (last < 0) return undefined;
      const ops = Array.from({ length: numStreams }, (_stream, t) =>
        t === stream ? last : (this.clocks[last * numStreams + t] as number),
      );
      return { entries: this.entriesBefore(last), ops };
    });
  }

  /** The streams whose entry into the call comes before op `id`: its own, and those of which it knows some op to be complete. */
  private entriesBefore(id: number): number {
    const { flat, context } = this.frame;
    const { numStreams } = context;
    let mask = 1 << (flat.streams[id] as number);
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
    const { flat, cells, context } = this.frame;
    const slot = flat.views.slot[view] as number;
    const end = cells.high[view] as number;
    const { numStreams } = context;
    const row = id * numStreams;
    this.isReported = false;
    for (let cell = cells.low[view] as number; cell < end; cell++) {
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
    if (owner >= 0) this.report(`reads ${this.view(view)}, whose bytes were overwritten through ${slotText(owner, this.frame)}`);
    else if (this.frame.hasEntry[slot] !== true) {
      this.report(`reads ${this.view(view)}, which nothing has written${this.entryHint(slot)}`);
      this.owner[cell] = slot;
    } else if (this.entryReader[cell] === -1) this.entryReader[cell] = slot;
    else if (this.entryReader[cell] !== slot) this.sharedEntries.push({ cell, slot });
  }

  private entryHint(slot: number): string {
    const { flat, context } = this.frame;
    const { param, buffer } = flat.views.slots[slot] as Slot;
    if (bufferAt(context, buffer).scope === 'call') return ' in this call';
    return ` in this call, and its parameter ${flat.section.params[param]?.name} has no entry value`;
  }

  private reportRace(view: number, cell: number, rival: number): void {
    const { flat, cells } = this.frame;
    const { section, firstRead, opViews } = flat;
    const { kind, stream } = section.ops[rival] as Op;
    const { low, high } = cells;
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
    const { flat, context, call } = this.frame;
    context.violations.add(atOp(flat, this.id, problem, context, call));
  }

  private view(view: number): string {
    const { flat, context } = this.frame;
    return viewText(flat, view, context);
  }
}
