/**
 * Adds the waits an op needs: on the last op of every other stream that it conflicts with (read after write, write
 * after read, write after write of overlapping rows), unless an earlier wait already implies it.
 */
import { type Access, type Op, STREAMS, type Stream } from '../op.js';

type Unordered = Omit<Op, 'waits'>;

interface Use {
  readonly start: number;
  readonly end: number;
  readonly op: number;
  readonly stream: Stream;
  readonly changes: boolean;
}

const BINDS: readonly Access['bind'][] = ['fixed', 'segment', 'layer'];

/** Uses that still matter, by buffer and by the instance of it that they name. */
type Uses = Map<number, Use[]>[];

/** Waits of the ops of one part. Ids are positions in the section, and follow one another. */
export function addWaits(ops: readonly Unordered[]): readonly Op[] {
  const uses: Uses = [];
  const order = new KnownOrder(ops);
  return ops.map((op, i) => ({ ...op, waits: order.waitsFor(i, meetUses(op, uses)) }));
}

/** What is complete when each op starts: its stream's earlier ops, and what its waits imply. */
class KnownOrder {
  private readonly first: number;
  private readonly streams: Uint8Array;
  /** Row i: for each stream the highest id that is complete when op number i starts; -1 when none is known to be. */
  private readonly clocks: Int32Array;
  private readonly latest = new Int32Array(STREAMS.length).fill(-1);

  constructor(ops: readonly Unordered[]) {
    this.first = ops[0]?.id ?? 0;
    this.streams = Uint8Array.from(ops, ({ stream }) => STREAMS.indexOf(stream));
    this.clocks = new Int32Array(ops.length * STREAMS.length).fill(-1);
  }

  /** Drops what is implied already. Latest ops imply most, so they come first. Ops are asked for in order. */
  waitsFor(i: number, conflicting: number[]): readonly number[] {
    const stream = this.streams[i] ?? 0;
    this.learn(i, this.latest[stream] ?? -1);
    this.latest[stream] = this.first + i;
    const waits: number[] = [];
    for (const id of conflicting.sort((a, b) => b - a)) {
      if ((this.clocks[i * STREAMS.length + (this.streams[id - this.first] ?? 0)] ?? -1) >= id) continue;
      waits.push(id);
      this.learn(i, id);
    }
    return waits.reverse();
  }

  /** Op number i starts after op `done`, and so after all that came before that. */
  private learn(i: number, done: number): void {
    if (done < 0) return;
    const source = done - this.first;
    for (let s = 0; s < STREAMS.length; s++) {
      const known = s === this.streams[source] ? done : (this.clocks[source * STREAMS.length + s] ?? -1);
      const at = i * STREAMS.length + s;
      if (known > (this.clocks[at] ?? -1)) this.clocks[at] = known;
    }
  }
}

/** Ids of the ops that `op` must come after, some more than once. Its own uses are remembered in place of those they replace. */
function meetUses(op: Unordered, uses: Uses): number[] {
  const found: number[] = [];
  for (const access of op.reads) meet(access, false);
  for (const access of op.writes) meet(access, true);
  for (const access of op.accumulates) meet(access, true);
  return found;

  function meet(access: Access, changes: boolean): void {
    const { start, end } = access.rows;
    const now: Use = { start, end, op: op.id, stream: op.stream, changes };
    const known = usesOf(access, op.layerSlot, uses);
    let kept = 0;
    for (const use of known) {
      if ((changes || use.changes) && use.start < end && start < use.end && use.op !== op.id) found.push(use.op);
      if (!replaces(now, use)) known[kept++] = use;
    }
    known[kept++] = now;
    if (kept < known.length) known.length = kept;
  }
}

/** Instances that may be the same memory are one list; a layer instance is relative to the op's own layer slot. */
function usesOf({ buffer, bind, index }: Access, layerSlot: number, uses: Uses): Use[] {
  const instance = bind === 'layer' ? index + layerSlot : index;
  const key = instance * BINDS.length + BINDS.indexOf(bind);
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
