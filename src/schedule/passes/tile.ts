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

  constructor(tensor: Tensor, pool: string) {
    this.tensor = tensor;
    this.pool = pool;
    this.ring = `${tensor.name}.${pool}`;
  }

  /** Chunks [start, end) of the ring. */
  inRing(start: number, end: number): OneRef {
    return end === start + 1 ? shared(this.known, start, { tensor: this.ring }) : [{ tensor: this.ring, chunks: { start, end } }];
  }
}

/** Consecutive chunks of one instance of a tensor: what is in a slot at a time. */
export class Tile {
  readonly staged: Staged;
  /** Other tiles of the tensor have other keys. */
  readonly key: number;
  private readonly source: Omit<TensorRef, 'chunks'>;
  private readonly known = new Map<number, OneRef>();

  constructor(staged: Staged, key: number, { tensor, param }: TensorRef) {
    this.staged = staged;
    this.key = key;
    this.source = param === undefined ? { tensor } : { tensor, param };
  }

  /** Chunks [start, end) of the tensor, where it lives. */
  away(start: number, end: number): OneRef {
    return end === start + 1 ? shared(this.known, start, this.source) : [{ ...this.source, chunks: { start, end } }];
  }
}

function shared(known: Map<number, OneRef>, chunk: number, source: Omit<TensorRef, 'chunks'>): OneRef {
  const refs: OneRef = known.get(chunk) ?? [{ ...source, chunks: { start: chunk, end: chunk + 1 } }];
  known.set(chunk, refs);
  return refs;
}
