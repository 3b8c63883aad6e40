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

/** Waits of the ops of one part. Ids are positions in the section; `first` is the id of the part's first op. */
export function addWaits(ops: readonly Unordered[]): readonly Op[] {
  const uses: Uses = [];
  const first = ops[0]?.id ?? 0;
  /** clocks[i][s]: highest id of stream s that is complete when op i starts; -1 when none is known to be. */
  const clocks: number[][] = [];
  const latest = STREAMS.map(() => -1);
  return ops.map((op) => {
    const stream = STREAMS.indexOf(op.stream);
    const previous = latest[stream] ?? -1;
    const clock = previous < 0 ? STREAMS.map(() => -1) : (clocks[previous - first] as number[]).slice();
    if (previous >= 0) clock[stream] = previous;
    const waits = waitsFor(meetUses(op, uses), clock, ops, clocks, first);
    clocks.push(clock);
    latest[stream] = op.id;
    return { ...op, waits };
  });
}

/** Drops what the clock already implies, and advances the clock by what is waited for. Latest ops imply most. */
function waitsFor(
  conflicting: number[],
  clock: number[],
  ops: readonly Unordered[],
  clocks: readonly (readonly number[])[],
  first: number,
): readonly number[] {
  const waits: number[] = [];
  for (const id of conflicting.sort((a, b) => b - a)) {
    const stream = STREAMS.indexOf((ops[id - first] as Unordered).stream);
    if ((clock[stream] ?? -1) >= id) continue;
    waits.push(id);
    const implied = clocks[id - first] as readonly number[];
    for (let s = 0; s < clock.length; s++) clock[s] = Math.max(clock[s] ?? -1, implied[s] ?? -1);
    clock[stream] = id;
  }
  return waits.reverse();
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
