/**
 * Moving data is a pass: a tensor that does not live on the device gets a staging ring on each pool of its way there, a copy
 * before a chunk is used and a copy back after it was changed. A chunk stays in its slot while one turn of the outer loop uses
 * it (a residency). A tensor two hops away is staged twice, by the same function: its second ring serves the copies of the first.
 *
 * A ring has one slot for each tile in use at once and prefetchDepth - 1 more, so that the next copy has somewhere to go: with
 * a depth of two this is FPDT's double buffer. A copy is issued as early as its slot and its source allow.
 */
import type { LogicalOp, LogicalSchedule, LogicalSection, Tensor } from '../logical.js';
import type { Places } from '../places.js';
import { findResidencies, numRefs, redirect } from './residencies.js';
import type { Residency } from './residency.js';
import { Staged } from './tile.js';

export function moveData(schedule: LogicalSchedule, places: Places, prefetchDepth: number): LogicalSchedule {
  const away = schedule.tensors.filter(({ home }) => home !== places.device);
  const hops = Math.max(0, ...away.map(({ home }) => places.route(home).length - 1));
  let moved = schedule;
  for (let hop = 1; hop <= hops; hop++) moved = stageHop(moved, hopTensors(away, hop, places), prefetchDepth);
  return moved;
}

/** Hop 1 stages on the device, hop 2 on the pool before it, for the tensors that are at least so far away. */
function hopTensors(away: readonly Tensor[], hop: number, places: Places): ReadonlyMap<string, Staged> {
  const staged = away.flatMap((tensor) => {
    const pool = places.route(tensor.home).at(-hop);
    return pool === undefined || pool === tensor.home ? [] : [new Staged(tensor, pool)];
  });
  return new Map(staged.map((one) => [one.tensor.name, one]));
}

function stageHop(schedule: LogicalSchedule, staged: ReadonlyMap<string, Staged>, prefetchDepth: number): LogicalSchedule {
  const slots = new Map<string, number>();
  const sections = schedule.sections.map((section) => stageSection(section, staged, prefetchDepth, slots, schedule.leavesOut === true));
  const rings = [...slots].map(([name, count]): Tensor => {
    const { tensor, pool, ring } = staged.get(name) as Staged;
    return { ...tensor, name: ring, home: pool, slots: count * tensor.tileChunks, instances: 1, scope: 'call' };
  });
  return { ...schedule, tensors: [...schedule.tensors, ...rings], sections };
}

function stageSection(
  section: LogicalSection,
  staged: ReadonlyMap<string, Staged>,
  prefetchDepth: number,
  slots: Map<string, number>,
  leavesOut: boolean,
): LogicalSection {
  const { byTensor, staysOfRefs } = findResidencies(section, staged);
  const insertions = new Insertions(section.ops.length);
  for (const [{ tensor }, stays] of byTensor) {
    if (stays.length === 0) continue;
    const numChunks = tensor.tileChunks * (1 + stays.reduce((last, { tile }) => Math.max(last, tile.number), 0));
    if (tensor.scope === 'call') dropDeadWrites(stays, numChunks);
    slots.set(tensor.name, Math.max(assignSlots(stays, prefetchDepth), slots.get(tensor.name) ?? 0));
    insertCopies(stays, numChunks, section, insertions, leavesOut);
  }
  const ops: LogicalOp[] = [];
  let nextRef = 0;
  for (const [i, op] of section.ops.entries()) {
    insertions.appendTo(ops, i);
    ops.push(redirect(op, staysOfRefs, nextRef));
    nextRef += numRefs(op);
  }
  insertions.appendTo(ops, section.ops.length);
  return { ...section, ops };
}

/** What of a call's own tensor nothing reads again in the call need not go back. `numChunks`: of all tiles of the tensor. */
function dropDeadWrites(stays: readonly Residency[], numChunks: number): void {
  const isReadLater = new Uint8Array(numChunks);
  for (let i = stays.length - 1; i >= 0; i--) {
    const stay = stays[i] as Residency;
    const { tile, dirty, written, fetched } = stay;
    const isNeeded = (chunk: number): boolean => isReadLater[tile.numberOf(chunk)] === 1;
    if (!dirty.every(isNeeded)) stay.dirty = dirty.filter(isNeeded);
    for (const chunk of written) isReadLater[tile.numberOf(chunk)] = 0;
    for (const chunk of fetched) isReadLater[tile.numberOf(chunk)] = 1;
  }
}

/** Gives each residency the slot that fell free first; returns the number of slots. */
function assignSlots(stays: readonly Residency[], prefetchDepth: number): number {
  const numSlots = Math.min(maxOverlap(stays) + prefetchDepth - 1, stays.length);
  const freeAfter = new Int32Array(numSlots).fill(-1);
  for (const stay of stays) {
    stay.slot = leastAt(freeAfter);
    freeAfter[stay.slot] = stay.last;
  }
  return numSlots;
}

/** Position of the first of the smallest values. */
function leastAt(values: Int32Array): number {
  let at = 0;
  for (let i = 1; i < values.length; i++) if ((values[i] as number) < (values[at] as number)) at = i;
  return at;
}

function maxOverlap(stays: readonly Residency[]): number {
  const active: Residency[] = [];
  let most = 0;
  for (const stay of stays) {
    let kept = 0;
    for (const other of active) if (other.last >= stay.first) active[kept++] = other;
    active.length = kept;
    active.push(stay);
    most = Math.max(most, active.length);
  }
  return most;
}

/** Copies in lists, one for each op that they go before: a long section has as many copies as ops. */
class Insertions {
  private readonly copies: LogicalOp[] = [];
  /** By op the first and the last copy before it, and by copy the next one; -1 for none. */
  private readonly first: Int32Array;
  private readonly last: Int32Array;
  private readonly next: number[] = [];

  constructor(numOps: number) {
    this.first = new Int32Array(numOps + 1).fill(-1);
    this.last = new Int32Array(numOps + 1).fill(-1);
  }

  insert(at: number, copies: readonly LogicalOp[]): void {
    for (const copy of copies) {
      const number = this.copies.push(copy) - 1;
      this.next.push(-1);
      const last = this.last[at] as number;
      if (last < 0) this.first[at] = number;
      else this.next[last] = number;
      this.last[at] = number;
    }
  }

  appendTo(ops: LogicalOp[], at: number): void {
    for (let number = this.first[at] as number; number >= 0; number = this.next[number] as number)
      ops.push(this.copies[number] as LogicalOp);
  }
}

/** `leavesOut`: copies say for which keys alone they are. */
function insertCopies(
  stays: readonly Residency[],
  numChunks: number,
  section: LogicalSection,
  insertions: Insertions,
  leavesOut: boolean,
): void {
  const freeFrom: number[] = [];
  const storedAt = new Int32Array(numChunks);
  for (const stay of stays) {
    const { tile } = stay;
    const slotFrom = freeFrom[stay.slot] ?? 0;
    const keys = leavesOut ? stay.keys : undefined;
    for (const { chunks, from, neededAt } of fetches(stay, storedAt)) {
      insertions.insert(Math.max(from, slotFrom), stay.copies(chunks, 'in', section.ops[neededAt] as LogicalOp, keys));
    }
    if (stay.dirty.length > 0) {
      insertions.insert(stay.last + 1, stay.copies(stay.dirty, 'out', section.ops[stay.last] as LogicalOp, keys));
      for (const chunk of stay.dirty) storedAt[tile.numberOf(chunk)] = stay.last + 1;
    }
    freeFrom[stay.slot] = stay.last + 1;
  }
}

interface Fetch {
  readonly chunks: number[];
  /** All of them are where they are fetched from before this op. */
  from: number;
  /** The first op that uses one of them. */
  readonly neededAt: number;
}

/** What a stay fetches, in as few copies as come in time: a chunk that is stored only after others are needed comes by itself. */
function fetches(stay: Residency, storedAt: Int32Array): readonly Fetch[] {
  const found: Fetch[] = [];
  for (const [i, chunk] of stay.fetched.entries()) {
    const from = storedAt[stay.tile.numberOf(chunk)] as number;
    const last = found.at(-1);
    if (last === undefined || from > last.neededAt) found.push({ chunks: [chunk], from, neededAt: stay.neededAt(i) });
    else {
      last.chunks.push(chunk);
      last.from = Math.max(last.from, from);
    }
  }
  return found;
}
