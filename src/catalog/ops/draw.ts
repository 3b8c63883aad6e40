/** Short names of ops for drawings: `attn q2 k0-1`, `copy k0 v0`, `post 3`. */
import type { OpRow } from './row.js';
import { OP_ROWS, type OpShape } from './table.js';
import { type AccessShape, type RowRange, rowsOf } from './views.js';

/** `names`: of the buffers, by id. Ranges that are not whole chunks are drawn as token ranges. */
export function drawOp(op: OpShape, chunkTokens: number, names: readonly string[]): string {
  const row: OpRow = OP_ROWS[op.kind];
  return row.draw(op.kind, {
    tokens: chunkText(op.tokens, chunkTokens),
    kv: op.kv === undefined ? '' : chunkText(op.kv, chunkTokens),
    moved: tensorSide(op, names)
      .map((access) => movedText(access, names))
      .join(' '),
  });
}

function chunkText({ start, end }: RowRange, chunkTokens: number): string {
  if (start % chunkTokens !== 0 || end % chunkTokens !== 0) return `[${start}:${end})`;
  const first = start / chunkTokens;
  const last = end / chunkTokens - 1;
  return last > first ? `${first}-${last}` : `${first}`;
}

/** Of a copy the tensor itself: the other side is its staging ring, under a longer name (`k.staged`). */
function tensorSide({ reads, writes }: OpShape, names: readonly string[]): readonly AccessShape[] {
  const length = (accesses: readonly AccessShape[]): number => accesses.reduce((sum, { buffer }) => sum + (names[buffer]?.length ?? 0), 0);
  return length(reads) > length(writes) ? writes : reads;
}

/** A copied view is one chunk (or tile) long, so its number follows from its first row. */
function movedText({ buffer, rows }: AccessShape, names: readonly string[]): string {
  const length = rowsOf(rows);
  return `${names[buffer] ?? `buffer${buffer}`}${length > 0 ? Math.floor(rows.start / length) : ''}`;
}
