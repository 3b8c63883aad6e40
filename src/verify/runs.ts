/** What is left of a replayed call for the program: runs of cells that share a story, at addresses relative to what the call binds. */
import type { CallFrame } from './callFrame.js';
import { slotAddress } from './cells.js';
import type { Replayed, Tail } from './replay.js';
import type { Slot } from './viewTable.js';

/** Columns over runs, in ascending order of address; by run and stream where `numStreams` a run. */
export interface Runs {
  readonly count: number;
  /** A slot that touched the run: calls of a class differ by where their slots lie. */
  readonly slot: Int32Array;
  /** Bytes from the start of the slot's instance. */
  readonly start: Float64Array;
  readonly end: Float64Array;
  /** The slot that wrote it last, and the one that read what stood there on entry; -1 for none. */
  readonly owner: Int32Array;
  readonly entryReader: Int32Array;
  /** As in Replayed; the last ops are the latest of the cells', all of which the calls to come know alike. */
  readonly firstRead: Uint8Array;
  readonly firstChange: Uint8Array;
  readonly lastRead: Int32Array;
  readonly lastChange: Int32Array;
}

/** An entry value that two slots read at the same bytes: one more check for each. */
export interface ExtraEntry {
  readonly slot: number;
  readonly start: number;
  readonly end: number;
}

export interface CallSummary {
  readonly runs: Runs;
  readonly extraEntries: readonly ExtraEntry[];
  readonly phases: readonly (readonly number[])[];
  /** By stream; undefined where the section has no op on it. */
  readonly tails: readonly (Tail | undefined)[];
}

export function summarize(frame: CallFrame, replay: Replayed): CallSummary {
  const { flat, args, context, cells } = frame;
  const addresses = flat.views.slots.map((slot: Slot) => slotAddress(slot, args, context));
  const { edges } = cells;
  const { tails } = replay;
  return {
    runs: runsOf(frame, replay, addresses, levelsOf(frame, tails)),
    extraEntries: replay.sharedEntries.map(({ cell, slot }) => ({
      slot,
      start: (edges[cell] as number) - (addresses[slot] as number),
      end: (edges[cell + 1] as number) - (addresses[slot] as number),
    })),
    phases: replay.phases,
    tails,
  };
}

/**
 * By op how many of the tails do not know it. What comes after the call knows of it what some tail knows, or all: ops of a stream on the
 * same level are known together.
 */
function levelsOf({ flat: { streams, numOps } }: CallFrame, tails: readonly (Tail | undefined)[]): Uint8Array {
  const levels = new Uint8Array(numOps);
  for (const tail of tails) {
    if (tail === undefined) continue;
    for (let id = 0; id < numOps; id++) if ((tail.ops[streams[id] as number] as number) < id) levels[id] = (levels[id] as number) + 1;
  }
  return levels;
}

function runsOf({ cells, context: { numStreams } }: CallFrame, replay: Replayed, addresses: readonly number[], levels: Uint8Array): Runs {
  const { toucher, owner, entryReader, firstRead, firstChange, lastRead, lastChange } = replay;
  /** First cell of each run, and one past the last. */
  const first: number[] = [];
  const last: number[] = [];
  for (let cell = 0; cell < cells.count; cell++) {
    if (toucher[cell] === -1) continue;
    if (last.length > 0 && last.at(-1) === cell && continues(replay, cell, levels, numStreams)) last[last.length - 1] = cell + 1;
    else {
      first.push(cell);
      last.push(cell + 1);
    }
  }
  const at = Int32Array.from(first);
  const slot = at.map((cell) => toucher[cell] as number);
  const relative = (edge: number, run: number): number => (cells.edges[edge] as number) - (addresses[slot[run] as number] as number);
  return {
    count: first.length,
    slot,
    start: Float64Array.from(first, relative),
    end: Float64Array.from(last, relative),
    owner: at.map((cell) => owner[cell] as number),
    entryReader: at.map((cell) => entryReader[cell] as number),
    firstRead: perStream(new Uint8Array(first.length * numStreams), firstRead, first, last, numStreams),
    firstChange: perStream(new Uint8Array(first.length * numStreams), firstChange, first, last, numStreams),
    lastRead: perStream(new Int32Array(first.length * numStreams).fill(-1), lastRead, first, last, numStreams),
    lastChange: perStream(new Int32Array(first.length * numStreams).fill(-1), lastChange, first, last, numStreams),
  };
}

/** Whether a cell tells the story of the one before it. */
function continues(replay: Replayed, cell: number, levels: Uint8Array, numStreams: number): boolean {
  const { toucher, owner, entryReader, firstRead, firstChange, lastRead, lastChange } = replay;
  if (toucher[cell] !== toucher[cell - 1] || owner[cell] !== owner[cell - 1] || entryReader[cell] !== entryReader[cell - 1]) return false;
  for (let at = cell * numStreams; at < (cell + 1) * numStreams; at++) {
    const before = at - numStreams;
    if (firstRead[at] !== firstRead[before] || firstChange[at] !== firstChange[before]) return false;
    // No op is at -1: undefined on both sides.
    if (levels[lastRead[at] as number] !== levels[lastRead[before] as number]) return false;
    if (levels[lastChange[at] as number] !== levels[lastChange[before] as number]) return false;
  }
  return true;
}

/** The greatest value of a run's cells, by stream. */
function perStream<Column extends Int32Array | Uint8Array>(
  into: Column,
  from: Column,
  first: readonly number[],
  last: readonly number[],
  numStreams: number,
): Column {
  for (let run = 0; run < first.length; run++) {
    for (let at = (first[run] as number) * numStreams; at < (last[run] as number) * numStreams; at++) {
      const to = run * numStreams + (at % numStreams);
      if ((from[at] as number) > (into[to] as number)) into[to] = from[at] as number;
    }
  }
  return into;
}
