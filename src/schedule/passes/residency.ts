/** One stay of a tile in a slot of a staging ring: what must be copied in for it, and what back out. */
import type { LogicalOp, Tensor, TensorRef } from '../logical.js';
import type { Range } from '../op.js';

/** A tensor and the ring that its uses are redirected to. */
export interface Staged {
  readonly tensor: Tensor;
  readonly pool: string;
  readonly ring: string;
}

export const HOW = ['reads', 'accumulates', 'writes'] as const;
export type How = (typeof HOW)[number];

/** One stay of a tile (of consecutive chunks) in a slot, from op `first` to op `last` of the section. A long schedule has 100,000s. */
export class Residency {
  /** Stays of the same tile of the same instance of the same tensor have the same key. */
  readonly tile: number;
  readonly turn: number;
  readonly first: number;
  last = -1;
  slot = -1;
  /** Chunks that are read before anything in this stay has written them. */
  fetched: readonly number[] = NONE;
  /** For each of them the op that needs it first. */
  neededAt: readonly number[] = NONE;
  /** Chunks that were changed and must go back. */
  dirty: readonly number[] = NONE;
  /** Chunks that were overwritten whole, so that what was there before is not needed. */
  written: readonly number[] = NONE;
  private readonly source: TensorRef;
  private readonly staged: Staged;

  constructor(ref: TensorRef, tile: number, turn: number, position: number, staged: Staged) {
    this.tile = tile;
    this.turn = turn;
    this.first = position;
    this.source = ref;
    this.staged = staged;
  }

  use({ chunks, rows }: TensorRef, how: How, position: number): void {
    this.last = position;
    const isWhole = how === 'writes' && rows === undefined;
    for (let chunk = chunks.start; chunk < chunks.end; chunk++) {
      if (isWhole && !this.fetched.includes(chunk)) this.written = withChunk(this.written, chunk);
      if (!isWhole && !this.written.includes(chunk) && !this.fetched.includes(chunk)) {
        this.fetched = [...this.fetched, chunk];
        this.neededAt = [...this.neededAt, position];
      }
      if (how !== 'reads') this.dirty = withChunk(this.dirty, chunk);
    }
  }

  /** Whether it has changed one of the chunks. */
  changed({ chunks }: TensorRef): boolean {
    for (let { start: chunk } = chunks; chunk < chunks.end; chunk++) if (this.dirty.includes(chunk)) return true;
    return false;
  }

  /** The same chunks in the ring. */
  inRing({ chunks, rows }: Pick<TensorRef, 'chunks' | 'rows'>): TensorRef {
    const { tensor, ring } = this.staged;
    const start = this.slot * tensor.tileChunks + (chunks.start % tensor.tileChunks);
    const moved = { tensor: ring, chunks: { start, end: start + chunks.end - chunks.start } };
    return rows === undefined ? moved : { ...moved, rows };
  }

  /** Copies of chunks into the slot or out of it, one for each run of consecutive chunks. */
  copies(chunks: readonly number[], direction: 'in' | 'out', { tokens, turn }: LogicalOp): readonly LogicalOp[] {
    const { tensor, param } = this.source;
    return runs(chunks).map((run) => {
      const away: TensorRef = param === undefined ? { tensor, chunks: run } : { tensor, chunks: run, param };
      const here = this.inRing({ chunks: run });
      const [from, to] = direction === 'in' ? [away, here] : [here, away];
      return { kind: 'copy', tokens, turn, reads: [from], writes: [to], accumulates: NO_REFS };
    });
  }
}

const NONE: readonly number[] = [];
const NO_REFS: readonly TensorRef[] = [];

function withChunk(chunks: readonly number[], chunk: number): readonly number[] {
  return chunks.includes(chunk) ? chunks : [...chunks, chunk];
}

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
