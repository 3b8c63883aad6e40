/**
 * The logical schedule that policies write: compute and exchange ops over named tensors and chunk numbers, with every
 * tensor at hand. Passes turn it into physical ops: moveData gives copies, placeTensors rows, addWaits dependencies.
 */
import type { OpKind } from '../catalog/ops/index.js';
import type { Dtype } from '../spec/dtype.js';
import type { Attribute, Parameter, Range } from './op.js';
import type { Turn } from './program.js';

/** How rows of a tensor relate to tokens: a rank's own share, all tokens of the chunk for own heads, or neither. */
export type Rows = 'local' | 'head' | 'flat';

export interface Tensor {
  readonly name: string;
  readonly dtype: Dtype;
  readonly layout: Rows;
  /** Dimensions after the first. */
  readonly inner: readonly number[];
  /** Whether a chunk lies in memory as [heads, rows] instead of [rows, heads]; for tensors with one inner dimension. */
  readonly headsFirst: boolean;
  /** Rows of one chunk; for `flat` the whole length. */
  readonly chunkRows: number;
  /** Chunks of an instance held at once. A ring holds fewer than numChunks; chunk i is then in slot i % slots. */
  readonly slots: number;
  /** Consecutive chunks that are staged as one tile where the tensor does not live on the device. */
  readonly tileChunks: number;
  /** Each chunk is an instance of its own, at an aligned address: what a file pool reads and writes. */
  readonly chunkInstances: boolean;
  /** Name of the pool it lives in. */
  readonly home: string;
  /** Instances of all chunks together. */
  readonly instances: number;
  readonly scope: 'call' | 'step';
}

/** A use of chunks [start, end) of one instance of a tensor, or of `rows` inside the first of them for flat tensors. */
export interface TensorRef {
  readonly tensor: string;
  readonly chunks: Range;
  /** Name of the section's parameter that says which instance; absent: instance 0. */
  readonly param?: string;
  /** Rows relative to the first chunk's first row; absent: all rows of the chunks. */
  readonly rows?: Range;
}

/** Every op has every field, in this order: objects of one shape are what engines read fast, and a long section has a hundred thousand. */
export interface LogicalOp {
  readonly kind: OpKind;
  readonly tokens: Range;
  readonly kv: Range | undefined;
  readonly attribute: Attribute | undefined;
  readonly reads: readonly TensorRef[];
  readonly writes: readonly TensorRef[];
  readonly accumulates: readonly TensorRef[];
  /** Which turn of the outer loop the op belongs to; a staged chunk stays in its slot while its turn lasts. */
  readonly turn: number;
}

export interface LogicalSection extends SectionBody {
  readonly name: string;
}

export interface SectionBody {
  readonly params: readonly Parameter[];
  readonly ops: readonly LogicalOp[];
}

export interface LogicalSchedule {
  readonly tensors: readonly Tensor[];
  readonly sections: readonly LogicalSection[];
  readonly turns: readonly Turn[];
  /** Tensors that loadBatch fills. */
  readonly tables: readonly string[];
  /** Whether ops of keys that no document joins to their queries are left out, and copies for them: see documents.ts. */
  readonly leavesOut?: boolean;
}
