/** What a policy knows: sizes in the words of the plan, and short-hands to write refs and ops with. */
import type { Strategy } from '../../chunk/strategy.js';
import type { Dtype } from '../../spec/dtype.js';
import type { ModelSpec, ParameterTable, RunSpec } from '../../spec/types.js';
import type { LogicalOp, LogicalPart, Tensor, TensorRef } from '../logical.js';
import type { OpKind, Range } from '../op.js';

export interface PolicyContext {
  readonly model: ModelSpec;
  readonly run: RunSpec;
  readonly strategy: Strategy;
  readonly parameters: ParameterTable;
}

/** Head counts and sizes that tensor declarations need. */
export function sizesOf({ model, run, strategy }: PolicyContext) {
  const ranks = run.sequenceParallelSize;
  return {
    numChunks: strategy.numChunks,
    chunkTokens: strategy.chunkTokens,
    localTokens: strategy.localChunkTokens,
    hidden: model.hiddenSize,
    heads: model.numHeads,
    kvHeads: model.numKvHeads,
    ownHeads: model.numHeads / ranks,
    ownKvHeads: model.numKvHeads / ranks,
    headDim: model.headDim,
    dtype: run.dtype as Dtype,
    numSegments: model.numLayers / strategy.segmentLayers,
  };
}
export type Sizes = ReturnType<typeof sizesOf>;

export function range(start: number, end: number): Range {
  return { start, end };
}

/** Chunk `chunk` of a tensor, or chunks [chunk, end). */
export function ref(tensor: string, chunk = 0, end = chunk + 1): TensorRef {
  return { tensor, chunks: range(chunk, end), bind: 'fixed', index: 0 };
}

/** A ref to one instance: fixed `index`, or relative to the segment or layer the section runs for. */
export function at(base: TensorRef, bind: TensorRef['bind'], index = 0): TensorRef {
  return { ...base, bind, index };
}

export function rowsOf(base: TensorRef, start: number, end: number): TensorRef {
  return { ...base, rows: range(start, end) };
}

export interface Views {
  readonly reads?: readonly TensorRef[];
  readonly writes?: readonly TensorRef[];
  readonly accumulates?: readonly TensorRef[];
}

/** Collects the ops of one part: one decoder layer forward or backward, in the order the streams see them. */
export class PartWriter {
  private readonly ops: LogicalOp[] = [];
  private readonly layerSlot: number;
  private readonly sizes: Sizes;
  private firstTurn = 0;

  constructor(layerSlot: number, sizes: Sizes) {
    this.layerSlot = layerSlot;
    this.sizes = sizes;
  }

  /** Appends an op on chunk `chunk` in outer-loop turn `turn`; `kv` is a range of chunks. */
  add(kind: OpKind, chunk: number, views: Views, more: { kv?: Range; turn?: number; tokens?: Range } = {}): void {
    this.addForSlot(this.layerSlot, kind, chunk, views, more);
  }

  /** Ends a loop over chunks: what later ops use is not held over from before, whatever their turn. */
  endLoop(): void {
    this.firstTurn += this.sizes.numChunks;
  }

  addForSlot(
    layerSlot: number,
    kind: OpKind,
    chunk: number,
    { reads = [], writes = [], accumulates = [] }: Views,
    { kv, turn = chunk, tokens = range(chunk, chunk + 1) }: { kv?: Range; turn?: number; tokens?: Range } = {},
  ): void {
    const size = this.sizes.chunkTokens;
    const toTokens = (chunks: Range): Range => range(chunks.start * size, chunks.end * size);
    this.ops.push({
      kind,
      layerSlot,
      tokens: toTokens(tokens),
      ...(kv === undefined ? {} : { kv: toTokens(kv) }),
      reads,
      writes,
      accumulates,
      turn: this.firstTurn + turn,
    });
  }

  finish(): LogicalPart {
    return { layerSlot: this.layerSlot, ops: this.ops };
  }
}

/** A tensor declaration with the common defaults: in HBM, one instance, dead after its section part. */
export function tensor(fields: Pick<Tensor, 'name' | 'dtype' | 'layout' | 'inner' | 'chunkRows' | 'slots'> & Partial<Tensor>): Tensor {
  return { home: 'hbm', instances: 1, scope: 'section', ...fields };
}
