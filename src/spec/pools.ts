/** Memory pools and the links between them. Names are data: a plan may have any, of these three kinds. */

/** `device`: where compute reads and writes; `pinned`: host memory a copy engine reaches; `file`: a preallocated file. */
export type PoolKind = 'device' | 'pinned' | 'file';

export interface Pool {
  readonly name: string;
  readonly kind: PoolKind;
  /** Bytes of the arena (of the file) that a plan lays out; 0 where it uses none. */
  readonly bytes: number;
}

/** A pool before anything is laid out in it. */
export type NamedPool = Pick<Pool, 'name' | 'kind'>;

/** Copies from one pool to another are queued on one stream, first in, first out. */
export interface Link {
  readonly from: string;
  readonly to: string;
  readonly stream: string;
}

/** Instances of a file pool's buffers start at multiples of this, so that they may be read and written past the page cache. */
export const FILE_ALIGNMENT_BYTES = 4096;
