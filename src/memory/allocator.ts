/** How PyTorch's allocators serve what a ledger lists: which items add up at an instant, and what is reserved beside them. */
import type { ClusterSpec } from '../spec/types.js';
import { derivedAt, type InstantItem, type MemoryItem, type Moment, sumBytes } from './items.js';
import type { Temporary } from './scheduleUse.js';

type Device = ClusterSpec['device'];

/** Reserved over allocated bytes of PyTorch's caching allocator: 4% median, 9.3% worst over published runs. */
const ALLOCATOR_RESERVE = 0.09;
const MOMENTS: readonly Moment[] = ['ops', 'gather', 'reduce'];

/** Of items that one device has at an instant, those that are there together: see Moment. */
export function together(items: readonly InstantItem[], device: Device): readonly MemoryItem[] {
  const counted = device === 'cuda' ? items : items.filter(({ moment }) => moment === undefined || moment === fullestMoment(items));
  return counted.map(({ name, bytes, provenance, note }) => ({ name, bytes, provenance, note }));
}

function fullestMoment(items: readonly InstantItem[]): Moment | undefined {
  const bytesAt = (at: Moment): number => items.reduce((sum, { moment, bytes }) => sum + (moment === at ? bytes : 0), 0);
  return MOMENTS.reduce((best, next) => (bytesAt(next) > bytesAt(best) ? next : best), 'ops');
}

/**
 * Ops of one stream make their temporaries one after the other. On a GPU the caching allocator keeps blocks by stream, so those of
 * different streams add up; on the CPU one thread runs all ops, so only the largest counts.
 */
export function temporaryItems(temporaries: readonly Temporary[], device: Device): readonly InstantItem[] {
  const sorted = temporaries.toSorted((a, b) => b.bytes - a.bytes);
  const counted = device === 'cuda' ? sorted : sorted.slice(0, 1);
  return counted.map(({ section, stream, bytes }) =>
    derivedAt(
      'ops',
      `temporaries of ${section}${stream === 'compute' ? '' : ` on ${stream}`}`,
      bytes,
      `the largest op of the instant on ${stream}, by formula`,
    ),
  );
}

/** The items, and what the caching allocator reserves beside them and `others` that it serves too. The CPU's keeps nothing. */
export function withReserve(items: readonly MemoryItem[], others: readonly MemoryItem[], device: Device): readonly MemoryItem[] {
  const bytes = Math.ceil(ALLOCATOR_RESERVE * (sumBytes(items) + sumBytes(others)));
  if (device === 'cpu' || bytes === 0) return items;
  const note = `${ALLOCATOR_RESERVE * 100}% of what PyTorch allocates, arenas apart: the worst of published runs`;
  return [...items, { name: 'allocator reserve', bytes, provenance: 'assumed', note }];
}
