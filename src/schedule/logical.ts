/**
 * The logical schedule that policies write: compute and exchange ops over named tensors and chunk numbers, with every
 * tensor at hand. Passes turn it into physical ops: placeTensors gives rows, moveData copies, addWaits dependencies.
 */
import type { Dtype } from '../spec/dtype.js';
import type { Pool } from './buffer.js';
import type { OpKind, Range, SectionName } from './op.js';

/** How rows of a tensor relate to tokens: a rank's own share, all tokens of the chunk for own heads, or neither. */
export type Layout = 'local' | 'head' | 'flat';

export interface Tensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly layout: Layout;
  /** Dimensions after the first. */
  readonly inner: readonly number[];
  /** Rows of one chunk; for `flat` the whole length. */
  readonly chunkRows: number;
  /** Chunks held at once. A ring holds fewer than numChunks; chunk i is then in slot i % slots. */
  readonly slots: number;
  /** Where the tensor lives. `host` tensors are staged through HBM by moveData. */
  readonly home: Pool;
  readonly instances: number;
  readonly scope: 'section' | 'step';
}

/** A use of chunks [start, end) of one instance of a tensor, or of `rows` inside it for flat tensors and tiles. */
export interface TensorRef {
  readonly tensor: string;
  readonly chunks: Range;
  readonly bind: 'fixed' | 'segment' | 'layer';
  readonly index: number;
  /** Rows relative to the first chunk's first row; absent: all rows of the chunks. */
  readonly rows?: Range;
}

export interface LogicalOp {
  readonly kind: OpKind;
  readonly layerSlot: number;
  readonly tokens: Range;
  readonly kv?: Range;
  readonly reads: readonly TensorRef[];
  readonly writes: readonly TensorRef[];
  readonly accumulates: readonly TensorRef[];
  /** Which turn of the outer loop the op belongs to; a staged chunk stays in HBM while its turn lasts. */
  readonly turn: number;
}

export interface LogicalPart {
  readonly layerSlot: number;
  readonly ops: readonly LogicalOp[];
}

export interface LogicalSection {
  readonly name: SectionName;
  readonly parts: readonly LogicalPart[];
}

export interface LogicalSchedule {
  readonly tensors: readonly Tensor[];
  readonly sections: readonly LogicalSection[];
}
