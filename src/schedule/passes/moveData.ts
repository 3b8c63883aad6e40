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
import { findResidencies, redirect } from './residencies.js';
import type { Residency } from './residency.js';
import { Staged, type Tile } from './tile.js';

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
  const sections = schedule.sections.map((section) => stageSection(section, staged, prefetchDepth, slots));
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
): LogicalSection {
  const { byTensor, staysOfOps } = findResidencies(section, staged);
  /** Copies to insert before op i. */
  const before: (LogicalOp[] | undefined)[] = Array.from({ length: section.ops.length + 1 });
  for (const [{ tensor }, stays] of byTensor) {
    if (stays.length === 0) continue;
    if (tensor.scope === 'call') dropDeadWrites(stays);
    slots.set(tensor.name, Math.max(assignSlots(stays, prefetchDepth), slots.get(tensor.name) ?? 0));
    insertCopies(stays, section, before);
  }
  const ops: LogicalOp[] = [];
  for (let i = 0; i <= section.ops.length; i++) {
    for (const copy of before[i] ?? []) ops.push(copy);
    const op = section.ops[i];
    if (op !== undefined) ops.push(redirect(op, staysOfOps[i]));
  }
  return { ...section, ops };
}

/** What of a call's own tensor nothing reads again in the call need not go back. */
function dropDeadWrites(stays: readonly Residency[]): void {
  const readLater = new Map<Tile, Set<number>>();
  for (const stay of stays.toReversed()) {
    const later = readLater.get(stay.tile) ?? new Set();
    readLater.set(stay.tile, later);
    if (stay.dirty.length > 0) stay.dirty = stay.dirty.filter((chunk) => later.has(chunk));
    for (const chunk of stay.written) later.delete(chunk);
    for (const chunk of stay.fetched) later.add(chunk);
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
  let active: Residency[] = [];
  let most = 0;
  for (const stay of stays) {
    active = active.filter((other) => other.last >= stay.first);
    active.push(stay);
    most = Math.max(most, active.length);
  }
  return most;
}

function insertCopies(stays: readonly Residency[], section: LogicalSection, before: (LogicalOp[] | undefined)[]): void {
  const freeFrom = new Map<number, number>();
  /** By tile and chunk of it. */
  const storedAt = new Map<number, number>();
  const insert = (at: number, copies: LogicalOp[]): void => {
    const there = before[at];
    if (there === undefined) before[at] = copies;
    else there.push(...copies);
  };
  for (const stay of stays) {
    const slotFrom = freeFrom.get(stay.slot) ?? 0;
    for (const { chunks, from, neededAt } of fetches(stay, (chunk) => storedAt.get(keyOf(stay, chunk)) ?? 0)) {
      insert(Math.max(from, slotFrom), stay.copies(chunks, 'in', section.ops[neededAt] as LogicalOp));
    }
    if (stay.dirty.length > 0) {
      insert(stay.last + 1, stay.copies(stay.dirty, 'out', section.ops[stay.last] as LogicalOp));
      for (const chunk of stay.dirty) storedAt.set(keyOf(stay, chunk), stay.last + 1);
    }
    freeFrom.set(stay.slot, stay.last + 1);
  }
}

const MOST_CHUNKS = 2 ** 22;

function keyOf({ tile }: Residency, chunk: number): number {
  return tile.key * MOST_CHUNKS + chunk;
}

interface Fetch {
  readonly chunks: number[];
  /** All of them are where they are fetched from before this op. */
  from: number;
  /** The first op that uses one of them. */
  readonly neededAt: number;
}

/** What a stay fetches, in as few copies as come in time: a chunk that is stored only after others are needed comes by itself. */
function fetches({ fetched, neededAt }: Residency, storedAt: (chunk: number) => number): readonly Fetch[] {
  const found: Fetch[] = [];
  for (const [i, chunk] of fetched.entries()) {
    const from = storedAt(chunk);
    const last = found.at(-1);
    if (last === undefined || from > last.neededAt) found.push({ chunks: [chunk], from, neededAt: neededAt[i] ?? 0 });
    else {
      last.chunks.push(chunk);
      last.from = Math.max(last.from, from);
    }
  }
  return found;
}
