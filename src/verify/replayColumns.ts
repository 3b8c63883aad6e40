/** A call as columns, for native code that replays long sections as replay.ts does, on a thread of its own: native/replay.cc. */
import type { OpOrder } from '../address/clocks.js';
import type { CallFrame } from './callFrame.js';
import type { Replayed, Tail } from './replay.js';

export interface ReplayColumns extends OpOrder {
  readonly numStreams: number;
  readonly numCells: number;
  /** By op; see FlatSection. */
  readonly firstRead: Int32Array;
  readonly firstWrite: Int32Array;
  readonly firstAccumulate: Int32Array;
  readonly opViews: Int32Array;
  /** By view its slot, its first cell and one past its last. */
  readonly viewSlot: Int32Array;
  readonly viewLow: Int32Array;
  readonly viewHigh: Int32Array;
  readonly slotHasEntry: Uint8Array;
}

/** What comes back. Lists of lists are one column and where each list begins. */
export interface ReplayedColumns
  extends Pick<Replayed, 'toucher' | 'owner' | 'entryReader' | 'lastRead' | 'lastChange' | 'firstRead' | 'firstChange'> {
  /** The first op at which something is wrong, after which nothing else here counts; -1 for none. */
  readonly problemOp: number;
  /** Pairs of a cell and a slot. */
  readonly sharedEntries: Int32Array;
  readonly phases: Int32Array;
  readonly phaseOffsets: Int32Array;
  /** By stream the entries of its tail, -1 for none; and row-major its ops. */
  readonly tailEntries: Int32Array;
  readonly tailOps: Int32Array;
}

/** Where calls are replayed elsewhere. */
export interface Replays {
  /** Sections with fewer ops are replayed sooner than their columns are copied. */
  readonly leastOps: number;
  /** Undefined where it cannot. Rejects with the signal's reason once that is given. */
  readonly start: (columns: ReplayColumns, signal?: AbortSignal) => Promise<ReplayedColumns> | undefined;
}

export const NO_REPLAYS: Replays = { leastOps: Number.POSITIVE_INFINITY, start: () => undefined };

export function columnsOf({ flat, cells, hasEntry, context }: CallFrame): ReplayColumns {
  const { streams, waitOffsets, waits, firstRead, firstWrite, firstAccumulate, opViews, views } = flat;
  return {
    numStreams: context.numStreams,
    numCells: cells.count,
    streams,
    waitOffsets,
    waits,
    firstRead,
    firstWrite,
    firstAccumulate,
    opViews,
    viewSlot: Int32Array.from(views.slot),
    viewLow: cells.low,
    viewHigh: cells.high,
    slotHasEntry: Uint8Array.from(hasEntry, Number),
  };
}

/** Of a call in which nothing is wrong. */
export function replayedOf({ sharedEntries, phases, phaseOffsets, tailEntries, tailOps, ...cells }: ReplayedColumns): Replayed {
  const numStreams = tailEntries.length;
  const pairs = Array.from({ length: sharedEntries.length / 2 }, (_, i) => ({
    cell: sharedEntries[2 * i] as number,
    slot: sharedEntries[2 * i + 1] as number,
  }));
  const tails = Array.from(tailEntries, (entries, stream): Tail | undefined =>
    entries < 0 ? undefined : { entries, ops: Array.from(tailOps.subarray(stream * numStreams, (stream + 1) * numStreams)) },
  );
  return {
    ...cells,
    sharedEntries: pairs,
    phases: tails.map((_, stream) => Array.from(phases.subarray(phaseOffsets[stream], phaseOffsets[stream + 1]))),
    tails,
  };
}
