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
  /** Stays of the same chunk have the same key. */
  readonly sourceKey: string;
  readonly first: number;
  last: number;
  readonly fetched: boolean;
  dirty: boolean;
  slot: number;
  /** The slot, as a ref. */
  staged: TensorRef;
}

type Group = 'reads' | 'writes' | 'accumulates';
/** The stays of an op's refs, in their order; undefined for tensors that live in HBM, and for an op that uses no others. */
type StaysOfOp = Readonly<Record<Group, readonly (Residency | undefined)[]>>;

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
  const { residencies, staysOfOps } = findResidencies(part, hosted);
  /** Copies to insert before op i. */
  const before: LogicalOp[][] = Array.from({ length: part.ops.length + 1 }, () => []);
  for (const [name, stays] of groupByTensor(residencies)) {
    const tensor = hosted.get(name) as Tensor;
    dropDeadWrites(stays, tensor);
    const count = Math.max(assignSlots(name, stays, prefetchDepth), slots.get(name) ?? 0);
    slots.set(name, count);
    insertCopies(stays, part, before);
  }
  const ops: LogicalOp[] = [];
  for (const [i, op] of part.ops.entries()) ops.push(...(before[i] ?? []), redirect(op, staysOfOps[i]));
  ops.push(...(before[part.ops.length] ?? []));
  return { layerSlot: part.layerSlot, ops };
}

function findResidencies(
  part: LogicalPart,
  hosted: ReadonlyMap<string, Tensor>,
): { readonly residencies: readonly Residency[]; readonly staysOfOps: readonly (StaysOfOp | undefined)[] } {
  const open = new Map<string, Residency>();
  const residencies: Residency[] = [];
  const isHosted = ({ tensor }: TensorRef): boolean => hosted.has(tensor);
  const staysOfOps = part.ops.map((op, position): StaysOfOp | undefined => {
    if (!op.reads.some(isHosted) && !op.writes.some(isHosted) && !op.accumulates.some(isHosted)) return undefined;
    // Writes last: a chunk that an op both reads and writes must be fetched.
    const reads = stays(op, position, op.reads, false, true);
    const accumulates = stays(op, position, op.accumulates, true, true);
    return { reads, accumulates, writes: stays(op, position, op.writes, true, false) };
  });
  return { residencies, staysOfOps };

  function stays(op: LogicalOp, position: number, refs: readonly TensorRef[], dirty: boolean, fetched: boolean): StaysOfOp[Group] {
    return refs.map((ref) => (isHosted(ref) ? visit(op, position, ref, dirty, fetched) : undefined));
  }

  function visit(op: LogicalOp, position: number, ref: TensorRef, dirty: boolean, fetched: boolean): Residency {
    if (ref.chunks.end - ref.chunks.start !== 1)
      throw new Error(`${op.kind} reads several chunks of ${ref.tensor}, which lives on the host`);
    const key = `${ref.tensor}/${ref.bind}/${ref.index}/${ref.chunks.start}/${op.layerSlot}/${op.turn}`;
    const stay = open.get(key);
    if (stay !== undefined) {
      stay.last = position;
      stay.dirty ||= dirty;
      return stay;
    }
    const { rows: _rows, ...source } = ref;
    const sourceKey = `${ref.tensor}/${ref.bind}/${ref.index}/${ref.chunks.start}`;
    const started = { tensor: ref.tensor, source, sourceKey, first: position, last: position, fetched, dirty, slot: -1, staged: source };
    open.set(key, started);
    residencies.push(started);
    return started;
  }
}

/** A section tensor that nothing reads again in the part need not go back to the host. */
function dropDeadWrites(stays: readonly Residency[], tensor: Tensor): void {
  if (tensor.scope === 'step') return;
  const readLater = new Map<string, boolean>();
  for (const stay of stays.toReversed()) {
    if (readLater.get(stay.sourceKey) !== true) stay.dirty = false;
    readLater.set(stay.sourceKey, stay.fetched);
  }
}

/** Gives each residency the slot that fell free first; returns the number of slots. */
function assignSlots(tensor: string, stays: readonly Residency[], prefetchDepth: number): number {
  const numSlots = Math.min(maxOverlap(stays) + prefetchDepth - 1, stays.length);
  const freeAfter = Array.from({ length: numSlots }, () => -1);
  const refs = freeAfter.map((_, slot) => slotRef(tensor, slot));
  for (const stay of stays) {
    const slot = freeAfter.indexOf(Math.min(...freeAfter));
    stay.slot = slot;
    stay.staged = refs[slot] as TensorRef;
    freeAfter[slot] = stay.last;
  }
  return numSlots;
}

function maxOverlap(stays: readonly Residency[]): number {
  let active: Residency[] = [];
  let most = 0;
  for (const stay of stays) {
    active = active.filter((other) => other.last >= stay.first);
    active.push(stay);
    most = Math.max(most, active.length);
  }
  return most;
}

function insertCopies(stays: readonly Residency[], part: LogicalPart, before: LogicalOp[][]): void {
  const freeFrom = new Map<number, number>();
  const storedAt = new Map<string, number>();
  for (const stay of stays) {
    if (stay.fetched) {
      const earliest = Math.max(freeFrom.get(stay.slot) ?? 0, storedAt.get(stay.sourceKey) ?? 0);
      before[Math.min(earliest, stay.first)]?.push(copy('fetch', stay, part.ops[stay.first] as LogicalOp));
    }
    if (stay.dirty) {
      before[stay.last + 1]?.push(copy('offload', stay, part.ops[stay.last] as LogicalOp));
      storedAt.set(stay.sourceKey, stay.last + 1);
    }
    freeFrom.set(stay.slot, stay.last + 1);
  }
}

function copy(kind: 'fetch' | 'offload', stay: Residency, op: LogicalOp): LogicalOp {
  const [from, to] = kind === 'fetch' ? [stay.source, stay.staged] : [stay.staged, stay.source];
  return { kind, layerSlot: op.layerSlot, tokens: op.tokens, turn: op.turn, reads: [from], writes: [to], accumulates: [] };
}

function slotRef(tensor: string, slot: number): TensorRef {
  return { tensor: stagingName(tensor), chunks: { start: slot, end: slot + 1 }, bind: 'fixed', index: 0 };
}

/** The op on the slots that its chunks stay in. */
function redirect(op: LogicalOp, stays: StaysOfOp | undefined): LogicalOp {
  if (stays === undefined) return op;
  const toSlots = (group: Group): readonly TensorRef[] => op[group].map((ref, n) => toSlot(ref, stays[group][n]));
  return { ...op, reads: toSlots('reads'), writes: toSlots('writes'), accumulates: toSlots('accumulates') };
}

function toSlot(ref: TensorRef, stay: Residency | undefined): TensorRef {
  if (stay === undefined) return ref;
  return ref.rows === undefined ? stay.staged : { ...stay.staged, rows: ref.rows };
}

function groupByTensor(stays: readonly Residency[]): ReadonlyMap<string, readonly Residency[]> {
  const groups = new Map<string, Residency[]>();
  for (const stay of stays) {
    const group = groups.get(stay.tensor);
    if (group === undefined) groups.set(stay.tensor, [stay]);
    else group.push(stay);
  }
  return groups;
}
