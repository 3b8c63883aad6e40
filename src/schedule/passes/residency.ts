/** One stay of a tile in a slot of a staging ring: what must be copied in for it, and what back out. */
import type { LogicalOp, TensorRef } from '../logical.js';
import type { Range } from '../op.js';
import type { OneRef, Tile } from './tile.js';

export type How = 'reads' | 'accumulates' | 'writes';

/** One stay of a tile (of consecutive chunks) in a slot, from op `first` to op `last` of the section. A long schedule has 100,000s. */
export class Residency {
  readonly tile: Tile;
  readonly turn: number;
  readonly first: number;
  last = -1;
  slot = -1;
  /** Chunks that are read before anything in this stay has written them. */
  fetched: readonly number[] = NONE;
  /** The op that needs the first of them first; and those that need each of the others first. */
  private neededFirst = -1;
  private neededNext: readonly number[] = NONE;
  /** Chunks that were changed and must go back. */
  dirty: readonly number[] = NONE;
  /** Chunks that were overwritten whole, so that what was there before is not needed. */
  written: readonly number[] = NONE;
  /** What its ops so far attend to, of which queries; undefined once one of them has other work. */
  private attended: { readonly queries: number; readonly keys: Range } | undefined = undefined;
  private numUses = 0;

  constructor(tile: Tile, turn: number, position: number) {
    this.tile = tile;
    this.turn = turn;
    this.first = position;
  }

  use({ chunks, rows }: TensorRef, how: How, position: number, { tokens, kv }: LogicalOp): void {
    this.last = position;
    this.note(tokens, kv);
    const isWhole = how === 'writes' && rows === undefined;
    for (let chunk = chunks.start; chunk < chunks.end; chunk++) {
      if (isWhole && !this.fetched.includes(chunk)) this.written = this.withChunk(this.written, chunk);
      if (!isWhole && !this.written.includes(chunk) && !this.fetched.includes(chunk)) this.fetch(chunk, position);
      if (how !== 'reads') this.dirty = this.withChunk(this.dirty, chunk);
    }
  }

  /**
   * Keys of the ops of the stay, from the first to the last, where all come before one chunk of queries and no other op uses it: it is as good
   * as not there where documents hide those keys. What was not fetched for it is another's.
   */
  get keys(): Range | undefined {
    if (this.attended === undefined || this.written.length > 0) return undefined;
    const { queries, keys } = this.attended;
    return keys.end <= queries ? keys : undefined;
  }

  private note(tokens: Range, kv: Range | undefined): void {
    const { attended } = this;
    if (this.numUses++ === 0) this.attended = kv === undefined ? undefined : { queries: tokens.start, keys: kv };
    else if (attended === undefined || kv === undefined || attended.queries !== tokens.start) this.attended = undefined;
    else if (kv.start < attended.keys.start || kv.end > attended.keys.end)
      this.attended = { ...attended, keys: { start: Math.min(kv.start, attended.keys.start), end: Math.max(kv.end, attended.keys.end) } };
  }

  /** The op that first needs chunk number `n` of those that are fetched. */
  neededAt(n: number): number {
    return n === 0 ? this.neededFirst : (this.neededNext[n - 1] ?? -1);
  }

  private fetch(chunk: number, position: number): void {
    if (this.fetched.length === 0) this.neededFirst = position;
    else this.neededNext = [...this.neededNext, position];
    this.fetched = this.withChunk(this.fetched, chunk);
  }

  private withChunk(chunks: readonly number[], chunk: number): readonly number[] {
    if (chunks.length === 0) return this.tile.staged.alone(chunk);
    return chunks.includes(chunk) ? chunks : [...chunks, chunk];
  }

  /** Whether it has changed one of the chunks. */
  changed({ chunks }: TensorRef): boolean {
    for (let { start: chunk } = chunks; chunk < chunks.end; chunk++) if (this.dirty.includes(chunk)) return true;
    return false;
  }

  /** The same chunks in the ring. */
  redirected({ chunks, rows }: TensorRef): TensorRef {
    const [moved] = this.inRing(chunks);
    return rows === undefined ? moved : { ...moved, rows };
  }

  private inRing(chunks: Range): OneRef {
    const { staged } = this.tile;
    const { tileChunks } = staged.tensor;
    const start = this.slot * tileChunks + (chunks.start % tileChunks);
    return staged.inRing(start, start + chunks.end - chunks.start);
  }

  /** Copies of chunks into the slot or out of it, one for each run of consecutive chunks. */
  copies(chunks: readonly number[], direction: 'in' | 'out', { tokens, turn }: LogicalOp, kv: Range | undefined): readonly LogicalOp[] {
    return runs(chunks).map((run): LogicalOp => {
      const away = this.tile.away(run.start, run.end);
      const here = this.inRing(run);
      const [reads, writes] = direction === 'in' ? [away, here] : [here, away];
      return { kind: 'copy', tokens, kv, attribute: undefined, reads, writes, accumulates: NO_REFS, turn };
    });
  }
}

const NONE: readonly number[] = [];
const NO_REFS: readonly TensorRef[] = [];

function runs(chunks: readonly number[]): readonly Range[] {
  const [only] = chunks;
  if (only !== undefined && chunks.length === 1) return [{ start: only, end: only + 1 }];
  const found: { start: number; end: number }[] = [];
  for (const chunk of [...chunks].sort((a, b) => a - b)) {
    const last = found.at(-1);
    if (last?.end === chunk) last.end = chunk + 1;
    else found.push({ start: chunk, end: chunk + 1 });
  }
  return found;
}
