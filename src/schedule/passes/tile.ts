/** What is staged, and the refs to it on either side: a long schedule has a million that name the same few chunks. */
import type { Tensor, TensorRef } from '../logical.js';

/** The refs of an op that has one. */
export type OneRef = readonly [TensorRef];

/** A tensor and the ring that its uses are redirected to. */
export class Staged {
  readonly tensor: Tensor;
  readonly pool: string;
  readonly ring: string;
  private readonly known = new Map<number, OneRef>();
  private readonly lists = new Map<number, readonly number[]>();

  constructor(tensor: Tensor, pool: string) {
    this.tensor = tensor;
    this.pool = pool;
    this.ring = `${tensor.name}.${pool}`;
  }

  /** A list of one chunk. */
  alone(chunk: number): readonly number[] {
    const known = this.lists.get(chunk);
    if (known !== undefined) return known;
    const list = [chunk];
    this.lists.set(chunk, list);
    return list;
  }

  /** Chunks [start, end) of the ring. */
  inRing(start: number, end: number): OneRef {
    return end === start + 1 ? shared(this.known, start, { tensor: this.ring }) : [{ tensor: this.ring, chunks: { start, end } }];
  }
}

/** Consecutive chunks of one instance of a tensor: what is in a slot at a time. */
export class Tile {
  readonly staged: Staged;
  /** Among the tiles of the tensor that the section uses. */
  readonly number: number;
  private readonly source: Omit<TensorRef, 'chunks'>;
  private readonly known = new Map<number, OneRef>();

  constructor(staged: Staged, number: number, { tensor, param }: TensorRef) {
    this.staged = staged;
    this.number = number;
    this.source = param === undefined ? { tensor } : { tensor, param };
  }

  /** Of a chunk among all chunks of all tiles. */
  numberOf(chunk: number): number {
    const { tileChunks } = this.staged.tensor;
    return this.number * tileChunks + (chunk % tileChunks);
  }

  /** Chunks [start, end) of the tensor, where it lives. */
  away(start: number, end: number): OneRef {
    return end === start + 1 ? shared(this.known, start, this.source) : [{ ...this.source, chunks: { start, end } }];
  }
}

function shared(known: Map<number, OneRef>, chunk: number, source: Omit<TensorRef, 'chunks'>): OneRef {
  const refs = known.get(chunk);
  if (refs !== undefined) return refs;
  const made: OneRef = [{ ...source, chunks: { start: chunk, end: chunk + 1 } }];
  known.set(chunk, made);
  return made;
}
