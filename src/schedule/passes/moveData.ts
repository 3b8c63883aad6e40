/**
 * Moving data is a pass: tensors whose home is the host get an HBM staging ring, a fetch before a chunk is used and an
 * offload after it was changed. A chunk stays in its slot while one turn of the outer loop uses it (a residency).
 *
 * A ring has one slot for each chunk in use at once and prefetchDepth - 1 more, so that the next fetch has somewhere to go: with
 * a depth of two this is FPDT's double buffer. A fetch is issued as early as its slot and its source allow.
 */
import type { LogicalOp, LogicalPart, LogicalSchedule, LogicalSection, Tensor, TensorRef } from '../logical.js';

/** One stay of a chunk in a slot, from op `first` to op `last` of the part. */
interface Residency {
  readonly tensor: string;
  readonly source: TensorRef;
  readonly chunk: number;
  readonly first: number;
  last: number;
  readonly fetched: boolean;
  dirty: boolean;
  slot: number;
}

export function moveData(schedule: LogicalSchedule, prefetchDepth: number): LogicalSchedule {
  const hosted = new Map(schedule.tensors.filter((tensor) => tensor.home === 'host').map((tensor) => [tensor.name, tensor]));
  if (hosted.size === 0) return schedule;
  const slots = new Map<string, number>();
  const sections = schedule.sections.map(
    (section): LogicalSection => ({
      name: section.name,
      parts: section.parts.map((part) => stagePart(part, hosted, prefetchDepth, slots)),
    }),
  );
  return { tensors: [...schedule.tensors, ...stagingRings(hosted, slots)], sections };
}

export function stagingName(tensor: string): string {
  return `${tensor}.staged`;
}

function stagingRings(hosted: ReadonlyMap<string, Tensor>, slots: ReadonlyMap<string, number>): readonly Tensor[] {
  return [...slots].map(([name, count]) => {
    const tensor = hosted.get(name) as Tensor;
    return { ...tensor, name: stagingName(name), home: 'hbm', slots: count, instances: 1, scope: 'section' };
  });
}

function stagePart(part: LogicalPart, hosted: ReadonlyMap<string, Tensor>, prefetchDepth: number, slots: Map<string, number>): LogicalPart {
  const residencies = findResidencies(part, hosted);
  const staging = new Map<LogicalOp, Map<string, number>>();
  /** Copies to insert before op i. */
  const before: LogicalOp[][] = Array.from({ length: part.ops.length + 1 }, () => []);
  for (const [name, stays] of groupBy(residencies, (stay) => stay.tensor)) {
    const tensor = hosted.get(name) as Tensor;
    dropDeadWrites(stays, tensor);
    const count = Math.max(assignSlots(stays, prefetchDepth), slots.get(name) ?? 0);
    slots.set(name, count);
    insertCopies(stays, part, before);
    for (const stay of stays) rememberSlots(stay, part, staging);
  }
  const ops = part.ops.flatMap((op, i) => [...(before[i] ?? []), redirect(op, hosted, staging)]);
  return { layerSlot: part.layerSlot, ops: [...ops, ...(before[part.ops.length] ?? [])] };
}

function sourceKey(ref: TensorRef): string {
  return `${ref.tensor}/${ref.bind}/${ref.index}/${ref.chunks.start}`;
}

function findResidencies(part: LogicalPart, hosted: ReadonlyMap<string, Tensor>): readonly Residency[] {
  const open = new Map<string, Residency>();
  const all: Residency[] = [];
  part.ops.forEach((op, i) => {
    visit(op.reads, false, true);
    visit(op.accumulates, true, true);
    visit(op.writes, true, false);

    function visit(refs: readonly TensorRef[], dirty: boolean, needsValue: boolean): void {
      for (const ref of refs) {
        if (!hosted.has(ref.tensor)) continue;
        if (ref.chunks.end - ref.chunks.start !== 1)
          throw new Error(`${op.kind} reads several chunks of ${ref.tensor}, which lives on the host`);
        const key = `${sourceKey(ref)}/${op.layerSlot}/${op.turn}`;
        const stay = open.get(key);
        if (stay !== undefined) {
          stay.last = i;
          stay.dirty ||= dirty;
        } else {
          const { rows: _rows, ...source } = ref;
          const started = { tensor: ref.tensor, source, chunk: ref.chunks.start, first: i, last: i, fetched: needsValue, dirty, slot: -1 };
          open.set(key, started);
          all.push(started);
        }
      }
    }
  });
  return all;
}

/** A section tensor that nothing reads again in the part need not go back to the host. */
function dropDeadWrites(stays: readonly Residency[], tensor: Tensor): void {
  if (tensor.scope === 'step') return;
  const readLater = new Map<string, boolean>();
  for (const stay of stays.toReversed()) {
    const key = sourceKey(stay.source);
    if (readLater.get(key) !== true) stay.dirty = false;
    readLater.set(key, stay.fetched);
  }
}

/** Gives each residency the slot that fell free first; returns the number of slots. */
function assignSlots(stays: readonly Residency[], prefetchDepth: number): number {
  const numSlots = Math.min(maxOverlap(stays) + prefetchDepth - 1, stays.length);
  const freeAfter = Array.from({ length: numSlots }, () => -1);
  for (const stay of stays) {
    const slot = freeAfter.indexOf(Math.min(...freeAfter));
    stay.slot = slot;
    freeAfter[slot] = stay.last;
  }
  return numSlots;
}

function maxOverlap(stays: readonly Residency[]): number {
  const active: Residency[] = [];
  let most = 0;
  for (const stay of stays) {
    const still = active.filter((other) => other.last >= stay.first);
    active.length = 0;
    active.push(...still, stay);
    most = Math.max(most, active.length);
  }
  return most;
}

function insertCopies(stays: readonly Residency[], part: LogicalPart, before: LogicalOp[][]): void {
  const freeFrom = new Map<number, number>();
  const storedAt = new Map<string, number>();
  for (const stay of stays) {
    if (stay.fetched) {
      const earliest = Math.max(freeFrom.get(stay.slot) ?? 0, storedAt.get(sourceKey(stay.source)) ?? 0);
      before[Math.min(earliest, stay.first)]?.push(copy('fetch', stay, part.ops[stay.first] as LogicalOp));
    }
    if (stay.dirty) {
      before[stay.last + 1]?.push(copy('offload', stay, part.ops[stay.last] as LogicalOp));
      storedAt.set(sourceKey(stay.source), stay.last + 1);
    }
    freeFrom.set(stay.slot, stay.last + 1);
  }
}

function copy(kind: 'fetch' | 'offload', stay: Residency, op: LogicalOp): LogicalOp {
  const staged = stagedRef(stay);
  const [from, to] = kind === 'fetch' ? [stay.source, staged] : [staged, stay.source];
  return { kind, layerSlot: op.layerSlot, tokens: op.tokens, turn: op.turn, reads: [from], writes: [to], accumulates: [] };
}

function stagedRef(stay: Residency): TensorRef {
  return { tensor: stagingName(stay.tensor), chunks: { start: stay.slot, end: stay.slot + 1 }, bind: 'fixed', index: 0 };
}

function rememberSlots(stay: Residency, part: LogicalPart, staging: Map<LogicalOp, Map<string, number>>): void {
  for (let i = stay.first; i <= stay.last; i++) {
    const op = part.ops[i] as LogicalOp;
    const slots = staging.get(op) ?? new Map<string, number>();
    slots.set(`${sourceKey(stay.source)}/${op.turn}`, stay.slot);
    staging.set(op, slots);
  }
}

function redirect(
  op: LogicalOp,
  hosted: ReadonlyMap<string, Tensor>,
  staging: ReadonlyMap<LogicalOp, ReadonlyMap<string, number>>,
): LogicalOp {
  const toSlot = (ref: TensorRef): TensorRef => {
    if (!hosted.has(ref.tensor)) return ref;
    const slot = staging.get(op)?.get(`${sourceKey(ref)}/${op.turn}`) ?? -1;
    return { ...ref, tensor: stagingName(ref.tensor), chunks: { start: slot, end: slot + 1 }, bind: 'fixed', index: 0 };
  };
  return { ...op, reads: op.reads.map(toSlot), writes: op.writes.map(toSlot), accumulates: op.accumulates.map(toSlot) };
}

function groupBy<T>(items: readonly T[], key: (item: T) => string): ReadonlyMap<string, readonly T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(key(item)) ?? [];
    group.push(item);
    groups.set(key(item), group);
  }
  return groups;
}
