/**
 * Adds the waits an op needs: on the last op of every other stream that it conflicts with (read after write, write
 * after read, write after write of overlapping rows), unless an earlier wait already implies it. Instances that different
 * parameters name are taken to differ; the verifier checks that for the arguments of every call.
 */
import type { Access, Op } from '../op.js';

/** Keys of uses are made of instance, parameter and first row, and stay below 2^53. */
const MOST_PARAMS = 8;
const MOST_ROWS = 2 ** 33;

/** An op whose waits are still to be found. */
export type Unordered = Omit<Op, 'waits'> & { waits: readonly number[] };

interface Use {
  readonly start: number;
  readonly end: number;
  readonly op: number;
  readonly stream: string;
  readonly changes: boolean;
}

/** Uses that still matter, by buffer and by the instance of it, or the rows of that, that they name. */
type Uses = Map<number, Use[]>[];

/** Gives the ops of one section their waits, in place. Ids are their positions. */
export function addWaits(ops: readonly Unordered[]): readonly Op[] {
  const uses: Uses = [];
  const order = new KnownOrder(ops);
  const rowKeys = disjointBuffers(ops);
  for (const [i, op] of ops.entries()) op.waits = order.waitsFor(i, meetUses(op, uses, rowKeys));
  return ops;
}

/** Buffers whose accesses name the same rows or rows apart, so that uses of one chunk need not be held against those of another. */
function disjointBuffers(ops: readonly Unordered[]): ReadonlySet<number> {
  const ranges: Map<number, number>[] = [];
  const torn = new Set<number>();
  const note = ({ buffer, rows }: Access): void => {
    const known = ranges[buffer] ?? new Map<number, number>();
    ranges[buffer] = known;
    const end = known.get(rows.start);
    if (end === undefined) known.set(rows.start, rows.end);
    else if (end !== rows.end) torn.add(buffer);
  };
  for (const op of ops) {
    op.reads.forEach(note);
    op.writes.forEach(note);
    op.accumulates.forEach(note);
  }
  const isDisjoint = (known: ReadonlyMap<number, number>): boolean => {
    const sorted = [...known].sort(([a], [b]) => a - b);
    return sorted.every(([, end], i) => end <= (sorted[i + 1]?.[0] ?? end));
  };
  return new Set(ranges.flatMap((known, buffer) => (!torn.has(buffer) && isDisjoint(known) ? [buffer] : [])));
}

/** What is complete when each op starts: its stream's earlier ops, and what its waits imply. */
class KnownOrder {
  private readonly numStreams: number;
  private readonly streams: Uint8Array;
  /** Row i: for each stream the highest id that is complete when op number i starts; -1 when none is known to be. */
  private readonly clocks: Int32Array;
  private readonly latest: Int32Array;

  constructor(ops: readonly Unordered[]) {
    const names = [...new Set(ops.map(({ stream }) => stream))];
    this.numStreams = names.length;
    this.streams = Uint8Array.from(ops, ({ stream }) => names.indexOf(stream));
    this.clocks = new Int32Array(ops.length * names.length).fill(-1);
    this.latest = new Int32Array(names.length).fill(-1);
  }

  /** Drops what is implied already. Latest ops imply most, so they come first. Ops are asked for in order. */
  waitsFor(i: number, conflicting: number[]): readonly number[] {
    const stream = this.streams[i] ?? 0;
    this.learn(i, this.latest[stream] ?? -1);
    this.latest[stream] = i;
    const waits: number[] = [];
    for (const id of conflicting.sort((a, b) => b - a)) {
      if ((this.clocks[i * this.numStreams + (this.streams[id] ?? 0)] ?? -1) >= id) continue;
      waits.push(id);
      this.learn(i, id);
    }
    return waits.reverse();
  }

  /** Op number i starts after op `done`, and so after all that came before that. */
  private learn(i: number, done: number): void {
    if (done < 0) return;
    for (let s = 0; s < this.numStreams; s++) {
      const known = s === this.streams[done] ? done : (this.clocks[done * this.numStreams + s] ?? -1);
      const at = i * this.numStreams + s;
      if (known > (this.clocks[at] ?? -1)) this.clocks[at] = known;
    }
  }
}

/** Ids of the ops that `op` must come after, some more than once. Its own uses are remembered in place of those they replace. */
function meetUses(op: Unordered, uses: Uses, disjoint: ReadonlySet<number>): number[] {
  const found: number[] = [];
  for (const access of op.reads) meet(access, false);
  for (const access of op.writes) meet(access, true);
  for (const access of op.accumulates) meet(access, true);
  return found;

  function meet(access: Access, changes: boolean): void {
    const { start, end } = access.rows;
    const now: Use = { start, end, op: op.id, stream: op.stream, changes };
    const known = usesOf(access, uses, disjoint);
    let kept = 0;
    for (const use of known) {
      if ((changes || use.changes) && use.start < end && start < use.end && use.op !== op.id) found.push(use.op);
      if (!replaces(now, use)) known[kept++] = use;
    }
    known[kept++] = now;
    if (kept < known.length) known.length = kept;
  }
}

/** Uses of one instance of a buffer, or of the same rows of it. */
function usesOf({ buffer, param, index, rows }: Access, uses: Uses, disjoint: ReadonlySet<number>): Use[] {
  const instance = index * MOST_PARAMS + param + 1;
  const key = disjoint.has(buffer) ? -1 - instance * MOST_ROWS - rows.start : instance;
  const byInstance = uses[buffer] ?? new Map<number, Use[]>();
  uses[buffer] = byInstance;
  const known = byInstance.get(key);
  if (known !== undefined) return known;
  const none: Use[] = [];
  byInstance.set(key, none);
  return none;
}

/** A write of all its rows makes an earlier use irrelevant; so does a later read of the same rows on the same stream. */
function replaces(now: Use, earlier: Use): boolean {
  if (now.changes) return now.start <= earlier.start && earlier.end <= now.end;
  return !earlier.changes && now.stream === earlier.stream && now.start === earlier.start && earlier.end === now.end;
}
