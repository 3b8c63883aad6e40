/** What a policy knows: sizes in the words of the plan, and short-hands to write refs and ops with. */
import { OP_ROWS, type OpKind } from '../../catalog/ops/index.js';
import type { Dtype } from '../../spec/dtype.js';
import { type ParallelLayout, ownHeads, ownKvHeads } from '../../spec/parallelLayout.js';
import type { Strategy } from '../../spec/strategy.js';
import type { ModelSpec, ParameterTable, RunSpec } from '../../spec/types.js';
import type { LogicalOp, SectionBody, Tensor, TensorRef } from '../logical.js';
import type { Attribute, HeadGroup, Parameter, Range } from '../op.js';
import type { Places } from '../places.js';

export interface PolicyContext {
  readonly model: ModelSpec;
  readonly run: RunSpec;
  readonly strategy: Strategy;
  readonly parameters: ParameterTable;
  readonly layout: ParallelLayout;
  readonly places: Places;
  /** Chunks of keys that an attention op sees together, at most. */
  readonly rangeChunks: number;
  /** Causal attention over more keys than queries, and sliding windows: what the plan's kernels can do in one op. */
  readonly masks: { readonly rectangle: boolean; readonly window: boolean };
}

export function sizesOf({ model, run, strategy, layout }: PolicyContext) {
  return {
    numChunks: strategy.numChunks,
    headGroups: strategy.headGroups ?? 1,
    chunkTokens: strategy.chunkTokens,
    localTokens: strategy.localChunkTokens,
    hidden: model.hiddenSize,
    heads: model.numHeads,
    kvHeads: model.numKvHeads,
    ownHeads: ownHeads(layout),
    ownKvHeads: ownKvHeads(layout),
    headDim: model.headDim,
    dtype: run.dtype as Dtype,
  };
}
export type Sizes = ReturnType<typeof sizesOf>;

export function range(start: number, end: number): Range {
  return { start, end };
}

/** Chunk `chunk` of a tensor, or chunks [chunk, end). */
export function ref(tensor: string, chunk = 0, end = chunk + 1): TensorRef {
  return { tensor, chunks: range(chunk, end) };
}

/** A ref to the instance that a parameter of the section names. */
export function at(base: TensorRef, param: string): TensorRef {
  const { tensor, chunks, rows } = base;
  return rows === undefined ? { tensor, chunks, param } : { tensor, chunks, rows, param };
}

export function rowsOf(base: TensorRef, start: number, end: number): TensorRef {
  return { ...base, rows: range(start, end) };
}

/** A tensor that may live in several pools has one name in each: `x` on the device, `x@host` elsewhere. */
export function inPool(name: string, pool: string, { device }: Places): string {
  return pool === device ? name : `${name}@${pool}`;
}

export interface Views {
  readonly reads?: readonly TensorRef[];
  readonly writes?: readonly TensorRef[];
  readonly accumulates?: readonly TensorRef[];
}

interface More {
  readonly kv?: Range;
  readonly turn?: number;
  readonly tokens?: Range;
  readonly attribute?: Attribute | undefined;
  readonly heads?: HeadGroup | undefined;
}

const LOSSES: readonly OpKind[] = ['loss', 'lossWeighted', 'lossOnly'];

type Tiles = (kind: OpKind) => Attribute | undefined;

/** The pieces in which ops that may be cut work through their rows. */
export function tilesOf({ numLossTiles, numTokenTiles }: Pick<Strategy, 'numLossTiles' | 'numTokenTiles'>): Tiles {
  const loss = numLossTiles > 1 ? { tiles: numLossTiles } : undefined;
  const tokenWise = numTokenTiles > 1 ? { tiles: numTokenTiles } : undefined;
  return (kind) => (OP_ROWS[kind].tiled ? (LOSSES.includes(kind) ? loss : tokenWise) : undefined);
}

/** The groups of a rank's heads, by number, and all of them in the pairs of one exchange: undefined where heads are not cut. */
export function headGroupsOf({ strategy: { headGroups = 1 } }: PolicyContext): {
  readonly each: readonly (HeadGroup | undefined)[];
  readonly all: HeadGroup | undefined;
} {
  if (headGroups === 1) return { each: [undefined], all: undefined };
  const each = Array.from({ length: headGroups }, (_, group) => ({ groups: headGroups, group }));
  return { each, all: { groups: headGroups } };
}

/** Collects the ops of one section, in the order the streams see them. */
export class SectionWriter {
  private readonly ops: LogicalOp[] = [];
  private readonly sizes: Sizes;
  private readonly tiles: Tiles;
  private readonly withHeads = new Map<Attribute | undefined, Map<HeadGroup, Attribute>>();
  private firstTurn = 0;

  constructor(context: PolicyContext) {
    this.sizes = sizesOf(context);
    this.tiles = tilesOf(context.strategy);
  }

  /** Appends an op on chunk `chunk` in outer-loop turn `turn`; `kv` and `tokens` are ranges of chunks. Its tiles are the strategy's. */
  add(kind: OpKind, chunk: number, { reads = [], writes = [], accumulates = [] }: Views, more: More = {}): void {
    const { kv, turn = chunk, tokens = range(chunk, chunk + 1), attribute = this.tiles(kind), heads } = more;
    const size = this.sizes.chunkTokens;
    const keys = kv === undefined ? undefined : timesRange(kv, size);
    this.ops.push({
      kind,
      tokens: timesRange(tokens, size),
      kv: keys,
      attribute: heads === undefined ? attribute : this.ofHeads(attribute, heads),
      reads,
      writes,
      accumulates,
      turn: this.firstTurn + turn,
    });
  }

  /** Ends a loop over chunks: what later ops use is not held over from before, whatever their turn. */
  endLoop(): void {
    this.firstTurn += this.sizes.numChunks;
  }

  /** Ops share their attributes. */
  private ofHeads(attribute: Attribute | undefined, heads: HeadGroup): Attribute {
    const known = this.withHeads.get(attribute) ?? new Map<HeadGroup, Attribute>();
    this.withHeads.set(attribute, known);
    const found = known.get(heads) ?? { ...attribute, heads };
    known.set(heads, found);
    return found;
  }

  finish(params: readonly Parameter[]): SectionBody {
    return { params, ops: this.ops };
  }
}

function timesRange({ start, end }: Range, size: number): Range {
  return range(start * size, end * size);
}

/** A tensor declaration with the common defaults: on the device, one instance, dead after its call. */
export function tensor(
  fields: Pick<Tensor, 'name' | 'dtype' | 'layout' | 'inner' | 'chunkRows' | 'slots' | 'home'> & Partial<Tensor>,
): Tensor {
  return { instances: 1, scope: 'call', tileChunks: 1, headsFirst: false, chunkInstances: false, ...fields };
}
