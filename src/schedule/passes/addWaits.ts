/**
 * Adds the waits an op needs: on the last op of every other stream that it conflicts with (read after write, write
 * after read, write after write of overlapping rows), unless an earlier wait already implies it. Instances that different
 * parameters name are taken to differ; the verifier checks that for the arguments of every call.
 */
import type { Op } from '../op.js';
import { EarlierUses } from './earlierUses.js';

/** An op whose waits are still to be found. */
export type Unordered = Omit<Op, 'waits'> & { waits: readonly number[] };

/** Gives the ops of one section their waits, in place. Ids are their positions. */
export function addWaits(ops: readonly Unordered[]): readonly Op[] {
  const names = [...new Set(ops.map(({ stream }) => stream))];
  const streams = Uint8Array.from(ops, ({ stream }) => names.indexOf(stream));
  const uses = new EarlierUses(ops, streams, names.length);
  const order = new KnownOrder(streams, names.length);
  for (const [i, op] of ops.entries()) op.waits = order.waitsFor(i, uses.conflictsOfNext());
  return ops;
}

const NO_WAITS: readonly number[] = [];

/** What is complete when each op starts: its stream's earlier ops, and what its waits imply. */
class KnownOrder {
  private readonly numStreams: number;
  private readonly streams: Uint8Array;
  /** Row i: for each stream the highest id that is complete when op number i starts; -1 when none is known to be. */
  private readonly clocks: Int32Array;
  private readonly latest: Int32Array;
  /** Room to work in. */
  private readonly waits: number[] = [];

  constructor(streams: Uint8Array, numStreams: number) {
    this.numStreams = numStreams;
    this.streams = streams;
    this.clocks = new Int32Array(streams.length * numStreams).fill(-1);
    this.latest = new Int32Array(numStreams).fill(-1);
  }

  /** Drops what is implied already. Latest ops imply most, so they come first. Ops are asked for in order. */
  waitsFor(i: number, conflicting: readonly number[]): readonly number[] {
    const stream = this.streams[i] as number;
    this.learn(i, this.latest[stream] as number);
    this.latest[stream] = i;
    const { waits } = this;
    waits.length = 0;
    for (let id = this.latestUnknown(i, conflicting); id >= 0; id = this.latestUnknown(i, conflicting)) {
      waits.push(id);
      this.learn(i, id);
    }
    // A copy has no room to grow, which for half a million ops is much.
    return waits.length === 0 ? NO_WAITS : waits.slice().reverse();
  }

  /** -1: all are known to be complete. */
  private latestUnknown(i: number, ids: readonly number[]): number {
    const row = i * this.numStreams;
    let latest = -1;
    for (let n = 0; n < ids.length; n++) {
      const id = ids[n] as number;
      if (id > latest && (this.clocks[row + (this.streams[id] as number)] as number) < id) latest = id;
    }
    return latest;
  }

  /** Op number i starts after op `done`, and so after all that came before that. */
  private learn(i: number, done: number): void {
    if (done < 0) return;
    const { clocks, numStreams } = this;
    const row = i * numStreams;
    const known = done * numStreams;
    for (let s = 0; s < numStreams; s++)
      if ((clocks[known + s] as number) > (clocks[row + s] as number)) clocks[row + s] = clocks[known + s] as number;
    const own = row + (this.streams[done] as number);
    if (done > (clocks[own] as number)) clocks[own] = done;
  }
}
