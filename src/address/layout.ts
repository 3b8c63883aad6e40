/** Gives every buffer an address in its pool's arena, so that buffers that are never alive together may share bytes. */
import type { Buffer } from '../schedule/buffer.js';
import { type Places, placesOf } from '../schedule/places.js';
import type { Schedule } from '../schedule/schedule.js';
import { bufferBytes } from './bytes.js';
import { withEntryWaits } from './entryWaits.js';
import { type ConflictMatrix, findConflicts } from './lifetimes.js';
import { alignUp, placeByConflicts } from './place.js';

export interface LayoutOptions {
  /** A random legal layout instead of the compact one: a result that depends on addresses is a bug. */
  readonly seed?: number;
}

/** Orders tried beyond the two fixed ones; the most compact result counts. */
const NUM_SHUFFLED_ORDERS = 30;

/**
 * The schedule with addresses, the bytes of each pool's arena (the end of its last buffer), and the entry masks that these addresses
 * need.
 */
export function layoutSchedule(schedule: Schedule, options: LayoutOptions = {}): Schedule {
  return withEntryWaits(placeBuffers(schedule, options));
}

/** Addresses and arenas alone: what a memory plan needs. */
export function placeBuffers(schedule: Schedule, { seed }: LayoutOptions = {}): Schedule {
  const { buffers, pools, links } = schedule;
  const { offsets, arenaBytes } = placeIn(pools, placesOf(pools, links), buffers, findConflicts(schedule), seed);
  const sized = pools.map((pool) => ({ ...pool, bytes: arenaBytes[pool.name] ?? 0 }));
  return { ...schedule, pools: sized, buffers: buffers.map((buffer, i) => ({ ...buffer, offset: offsets[i] ?? 0 })) };
}

export interface Placed {
  /** By position in the list of buffers. */
  readonly offsets: Float64Array;
  /** By pool. */
  readonly arenaBytes: Readonly<Record<string, number>>;
}

export function placeIn(
  pools: readonly { readonly name: string }[],
  places: Places,
  buffers: readonly Buffer[],
  conflicts: ConflictMatrix,
  seed?: number,
): Placed {
  const offsets = new Float64Array(buffers.length);
  const place = (pool: string): number => {
    const members = buffers.flatMap((buffer, i) => (buffer.pool === pool ? [i] : []));
    const sizes = Float64Array.from(members, (i) => bufferBytes(buffers[i] as Buffer));
    const cells = restrict(conflicts, members);
    const alignment = places.alignment(pool);
    const random = seed === undefined ? undefined : mulberry32(seed);
    const placed = random === undefined ? placeCompactly(sizes, cells, alignment) : placeRandomly(sizes, cells, alignment, random);
    members.forEach((member, i) => {
      offsets[member] = placed[i] ?? 0;
    });
    return extent(placed, sizes, alignment);
  };
  return { offsets, arenaBytes: Object.fromEntries(pools.map(({ name }) => [name, place(name)])) };
}

function restrict({ size, cells }: ConflictMatrix, members: readonly number[]): Uint8Array {
  const restricted = new Uint8Array(members.length ** 2);
  for (let a = 0; a < members.length; a++) {
    const row = (members[a] as number) * size;
    for (let b = 0; b < members.length; b++) restricted[a * members.length + b] = cells[row + (members[b] as number)] ?? 0;
  }
  return restricted;
}

function extent(offsets: Float64Array, sizes: Float64Array, alignment: number): number {
  return offsets.reduce((end, offset, i) => Math.max(end, alignUp(offset + (sizes[i] ?? 0), alignment)), 0);
}

/** Largest first, then most contended first, then largest first with some disorder; the first of the smallest results. */
function placeCompactly(sizes: Float64Array, conflicts: Uint8Array, alignment: number): Float64Array {
  const least = leastExtent(sizes, conflicts, alignment);
  let best: Float64Array | undefined;
  let bestExtent = Number.POSITIVE_INFINITY;
  for (const order of orders(sizes, conflicts)) {
    const result = placeByConflicts({ sizes, conflicts, order, alignment });
    const reached = extent(result, sizes, alignment);
    if (reached < bestExtent) [best, bestExtent] = [result, reached];
    if (bestExtent <= least) break;
  }
  return best ?? new Float64Array(sizes.length);
}

function* orders(sizes: Float64Array, conflicts: Uint8Array): Generator<Int32Array> {
  yield descending(sizes);
  yield descending(
    sizes.map((size, i) => sizes.reduce((sum, other, j) => sum + (conflicts[i * sizes.length + j] === 1 ? other : 0), size)),
  );
  const random = mulberry32(0);
  for (let n = 0; n < NUM_SHUFFLED_ORDERS; n++) yield descending(sizes.map((size) => size * (0.5 + random())));
}

/** Items that all conflict with each other lie one after the other: no placement is shorter than the largest such set that is found. */
function leastExtent(sizes: Float64Array, conflicts: Uint8Array, alignment: number): number {
  const largestFirst = descending(sizes);
  const numItems = sizes.length;
  let least = 0;
  for (let first = 0; first < numItems; first++) {
    const chosen = [first];
    let bytes = alignUp(sizes[first] ?? 0, alignment);
    for (const item of largestFirst) {
      if (item === first || !chosen.every((other) => conflicts[item * numItems + other] === 1)) continue;
      chosen.push(item);
      bytes += alignUp(sizes[item] ?? 0, alignment);
    }
    least = Math.max(least, bytes);
  }
  return least;
}

/** Indices by descending key; equal keys by ascending index. */
function descending(keys: Float64Array): Int32Array {
  return Int32Array.from(keys.keys()).sort((a, b) => (keys[b] ?? 0) - (keys[a] ?? 0) || a - b);
}

/** Any order, any gap, some empty space: still legal. */
function placeRandomly(sizes: Float64Array, conflicts: Uint8Array, alignment: number, random: () => number): Float64Array {
  const offsets = new Float64Array(sizes.length);
  const placed: number[] = [];
  for (const item of descending(sizes.map(() => random()))) {
    const rivals = placed.filter((other) => conflicts[item * sizes.length + other] === 1);
    const starts = freeStarts(item, rivals, sizes, offsets);
    offsets[item] = starts[Math.floor(random() * starts.length)] ?? 0;
    placed.push(item);
  }
  return offsets;

  function freeStarts(item: number, rivals: readonly number[], itemSizes: Float64Array, placedAt: Float64Array): readonly number[] {
    const size = itemSizes[item] ?? 0;
    const slack = Math.floor(random() * 8) * alignment;
    const ends = rivals.map((other) => alignUp((placedAt[other] ?? 0) + (itemSizes[other] ?? 0), alignment));
    const candidates = [0, ...ends].flatMap((end) => [end, end + slack]);
    const free = (start: number): boolean =>
      rivals.every((other) => start + size <= (placedAt[other] ?? 0) || (placedAt[other] ?? 0) + (itemSizes[other] ?? 0) <= start);
    return candidates.filter(free);
  }
}

/** Small seeded generator of numbers in [0, 1): tommyettinger/mulberry32. */
export function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
