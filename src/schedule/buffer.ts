import type { Dtype } from '../spec/dtype.js';
import type { SectionName } from './op.js';

export type Pool = 'hbm' | 'host';
/**
 * A tensor that lives across ops, at an address the plan owns. The first dimension is rows: tokens, or elements of a
 * flat weight-gradient region. A buffer has one or more instances (one per layer, per segment or per slot) that lie
 * `instanceBytes` apart.
 */
export interface Buffer {
  readonly id: number;
  readonly name: string;
  readonly pool: Pool;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** In elements. */
  readonly strides: readonly number[];
  readonly instances: number;
  readonly instanceBytes: number;
  /** Byte offset of instance 0 in its arena; -1 until the layout pass has placed it. */
  readonly offset: number;
  /** Sections that touch it. */
  readonly sections: readonly SectionName[];
  /** `section`: dead when the section part ends; `step`: lives from its first to its last section of a micro-step. */
  readonly scope: 'section' | 'step';
}
