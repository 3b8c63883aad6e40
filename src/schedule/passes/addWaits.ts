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

/** Waits of the ops of one part. Ids are positions in the section; `first` is the id of the part's first op. */
export function addWaits(ops: readonly Unordered[]): readonly Op[] {
  const uses = new Map<string, Use[]>();
  const first = ops[0]?.id ?? 0;
  /** clocks[i][s]: highest id of stream s that is complete when op i starts; -1 when none is known to be. */
  const clocks: number[][] = [];
  const latest = STREAMS.map(() => -1);
  return ops.map((op) => {
    const stream = STREAMS.indexOf(op.stream);
    const previous = latest[stream] ?? -1;
    const clock = previous < 0 ? STREAMS.map(() => -1) : [...(clocks[previous - first] as number[])];
    if (previous >= 0) clock[stream] = previous;
    const waits = waitsFor(conflicts(op, uses), clock, ops, clocks, first);
    clocks.push(clock);
    latest[stream] = op.id;
    recordUses(op, uses);
    return { ...op, waits };
  });
}

/** Drops what the clock already implies, and advances the clock by what is waited for. Latest ops imply most. */
function waitsFor(
  conflicting: ReadonlySet<number>,
  clock: number[],
  ops: readonly Unordered[],
  clocks: readonly (readonly number[])[],
  first: number,
): readonly number[] {
  const waits: number[] = [];
  for (const id of [...conflicting].sort((a, b) => b - a)) {
    const other = ops[id - first] as Unordered;
    const stream = STREAMS.indexOf(other.stream);
    if ((clock[stream] ?? -1) >= id) continue;
    waits.push(id);
    clock[stream] = id;
    for (const [s, known] of (clocks[id - first] as readonly number[]).entries()) clock[s] = Math.max(clock[s] ?? -1, known);
  }
  return waits.sort((a, b) => a - b);
}

/** Instances that may be the same memory share a key; a layer instance is relative to the op's own layer slot. */
function instanceKey(access: Access, layerSlot: number): string {
  const index = access.bind === 'layer' ? access.index + layerSlot : access.index;
  return `${access.buffer}/${access.bind}/${index}`;
}

function accessesOf(op: Unordered): readonly { readonly access: Access; readonly changes: boolean }[] {
  return [
    ...op.reads.map((access) => ({ access, changes: false })),
    ...[...op.writes, ...op.accumulates].map((access) => ({ access, changes: true })),
  ];
}

function conflicts(op: Unordered, uses: ReadonlyMap<string, readonly Use[]>): ReadonlySet<number> {
  const found = new Set<number>();
  for (const { access, changes } of accessesOf(op)) {
    for (const use of uses.get(instanceKey(access, op.layerSlot)) ?? []) {
      if ((changes || use.changes) && use.start < access.rows.end && access.rows.start < use.end) found.add(use.op);
    }
  }
  return found;
}

function recordUses(op: Unordered, uses: Map<string, Use[]>): void {
  for (const { access, changes } of accessesOf(op)) {
    const key = instanceKey(access, op.layerSlot);
    const { start, end } = access.rows;
    const now = { start, end, op: op.id, stream: op.stream, changes };
    const kept = (uses.get(key) ?? []).filter((use) => !replaces(now, use));
    uses.set(key, [...kept, now]);
  }
}

/** A write of all its rows makes an earlier use irrelevant; so does a later read of the same rows on the same stream. */
function replaces(now: Use, earlier: Use): boolean {
  if (now.changes) return now.start <= earlier.start && earlier.end <= now.end;
  return !earlier.changes && now.stream === earlier.stream && now.start === earlier.start && earlier.end === now.end;
}
