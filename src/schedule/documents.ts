/**
 * What attention has to do where documents are packed into a sequence. Pure functions of where documents begin, with twins in
 * python/fpdt/attention (pieces.py, documents.py); both read test/fixtures/documents.json.
 *
 * The keys of an op all end with its queries, or before the first of them. There they are seen by the document of the first query alone,
 * and an op none of whose keys it has is left out, with what only it needs: its merge, and copies to and from staging slots. Those name
 * the keys of the op they are for. All else is as in the whole program, waits included: an op that is left out keeps its place.
 */
import { maskPairs } from '../catalog/ops/index.js';
import type { Mask, Range } from './op.js';

/** Queries of one document, keys of the same, and the mask between them. `pairs`: what the mask leaves of them. */
export interface Piece {
  readonly queries: Range;
  readonly keys: Range;
  readonly mask: Mask;
  readonly pairs: number;
}

export interface AttendedRanges {
  readonly tokens: Range;
  readonly kv?: Range | undefined;
}

/** Whether some documents leave the op out. */
export function mayBeHidden({ tokens, kv }: AttendedRanges): boolean {
  return kv !== undefined && kv.end <= tokens.start;
}

/** Whether these do. `starts`: where documents begin, ascending, the first at 0. */
export function isHidden(op: AttendedRanges, starts: readonly number[]): boolean {
  return mayBeHidden(op) && beginOf(starts, op.tokens.start) >= (op.kv?.end ?? 0);
}

/** By ascending queries, which no two pieces share. A query outside of all pieces sees no key of the op. */
export function piecesOf(starts: readonly number[], tokens: Range, kv: Range, mask: Mask): readonly Piece[] {
  const window = mask.kind === 'window' ? mask.window : undefined;
  return starts.flatMap((begin, i) => {
    const end = Math.min(starts[i + 1] ?? tokens.end, tokens.end);
    const queries = { start: Math.max(begin, tokens.start), end };
    const keys = { start: Math.max(begin, kv.start), end: Math.min(end, kv.end) };
    return queries.start < queries.end && keys.start < keys.end ? within(queries, keys, window) : [];
  });
}

/** Inside of one document: rows that a window hides from each other are left out, and the mask that is left is named. */
function within(queries: Range, keys: Range, window: number | undefined): readonly Piece[] {
  const unmasked: Mask = keys.end <= queries.start ? { kind: 'full' } : { kind: 'causal' };
  if (window === undefined) return [piece(queries, keys, unmasked)];
  const first = Math.max(keys.start, queries.start - window + 1);
  const last = Math.min(queries.end, keys.end - 1 + window);
  if (first >= keys.end || last <= queries.start) return [];
  const seeing = { start: queries.start, end: last };
  const seen = { start: first, end: keys.end };
  if (last - first <= window) return [piece(seeing, seen, unmasked)];
  const sliding: Mask = { kind: 'window', window };
  if (keys.end > queries.start || last - queries.start <= keys.end - first) return [piece(seeing, seen, sliding)];
  // A kernel of FlashAttention cannot mask fewer keys than queries in one call: those that see all keys go first.
  const middle = first + window;
  return [
    piece({ start: queries.start, end: middle }, seen, unmasked),
    piece({ start: middle, end: last }, { start: first + 1, end: keys.end }, sliding),
  ];
}

function piece(queries: Range, keys: Range, mask: Mask): Piece {
  return { queries, keys, mask, pairs: maskPairs(mask, queries, keys) };
}

/** Where the document that a position lies in begins. */
function beginOf(starts: readonly number[], position: number): number {
  return starts.findLast((begin) => begin <= position) ?? 0;
}
