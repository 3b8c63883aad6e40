/** Query-key pairs that a mask leaves. */
import type { MaskShape, RowRange } from './views.js';

/** Closed form; positions are global. `window`: a query sees itself and the window - 1 keys before it. */
export function maskPairs(mask: MaskShape, query: RowRange, key: RowRange): number {
  if (mask.kind === 'full') return (query.end - query.start) * (key.end - key.start);
  const causal = pairsUpTo(query, key, 0);
  return mask.kind === 'causal' ? causal : causal - pairsUpTo(query, key, mask.window);
}

/** Pairs with key <= query - distance: none for early queries, then one more for each, then all keys. */
function pairsUpTo(query: RowRange, key: RowRange, distance: number): number {
  const start = query.start - distance;
  const end = query.end - distance;
  const keys = key.end - key.start;
  // Query i (shifted) sees i - key.start + 1 keys while it lies inside the range of keys.
  const first = Math.max(start, key.start);
  const last = Math.min(end, key.end);
  const rising = Math.max(0, last - first);
  const seenByFirst = first - key.start + 1;
  const all = Math.max(0, end - Math.max(start, key.end));
  return rising * seenByFirst + (rising * (rising - 1)) / 2 + all * keys;
}
