import type { Dtype } from '../spec/dtype.js';

/**
 * A tensor that lives across ops, at an address the plan owns. The first dimension is rows: tokens, or elements of a
 * flat weight-gradient region. A buffer has one or more instances that lie `instanceBytes` apart.
 */
export interface Buffer {
  readonly id: number;
  readonly name: string;
  /** Name of its pool. */
  readonly pool: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** In elements. */
  readonly strides: readonly number[];
  /**
   * Rows of a block, in which heads come first: [heads, rows], as attention kernels have lse. Blocks lie one after the other, strides hold
   * inside one, and a view is one block. Absent: rows lie one after the other.
   */
  readonly blockRows?: number;
  readonly instances: number;
  readonly instanceBytes: number;
  /** Byte offset of instance 0 in its arena; -1 until the layout pass has placed it. */
  readonly offset: number;
  /** `call`: dead when the call ends; `step`: alive from its first to its last use in a micro-step. */
  readonly scope: 'call' | 'step';
}
