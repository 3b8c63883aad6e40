/** Ops, buffers and sizes to put into formulas. */
import { type AttributeShape, type BufferShape, type OpKind, type OpShape, type OpSizes, opSizes } from '../../src/catalog/ops/index.js';
import { parameterTable } from '../../src/catalog/index.js';
import type { Kernels } from '../../src/catalog/kernels.js';
import type { ParallelLayout } from '../../src/spec/parallelLayout.js';
import type { ModelSpec, RunSpec } from '../../src/spec/types.js';
import { specs } from '../spec/inputs.js';

export const BUFFERS: readonly BufferShape[] = [
  { dtype: 'float32', shape: [4096, 64] },
  { dtype: 'float32', shape: [100_000] },
];

/** An op over `rows` rows of buffer 0, for as many tokens. */
export function sampleOp(kind: OpKind, rows: number, more: Partial<OpShape> = {}): OpShape {
  return {
    kind,
    tokens: { start: 0, end: rows },
    kv: { start: 0, end: rows },
    reads: [{ buffer: 0, rows: { start: 0, end: rows } }],
    writes: [],
    accumulates: [],
    ...more,
  };
}

/** Heads dealt out evenly, `own` numbers on each of `ranks` ranks. */
export function evenLayout(ranks: number, ownHeads: number, ownKvHeads: number): ParallelLayout {
  const deal = (own: number) => Array.from({ length: ranks }, (_, rank) => Array.from({ length: own }, (_head, i) => rank * own + i));
  return { sequenceGroups: [Array.from({ length: ranks }, (_, i) => i)], heads: { query: deal(ownHeads), keyValue: deal(ownKvHeads) } };
}

export interface SizesMore {
  readonly model?: ModelSpec;
  readonly dtype?: RunSpec['dtype'];
  readonly device?: 'cpu' | 'cuda';
  readonly ranks?: number;
  readonly layout?: ParallelLayout;
  readonly kernels?: Kernels;
}

/** Of the small Llama of test/spec/inputs.ts, on one rank unless said otherwise. */
export function sampleSizes(more: SizesMore = {}): OpSizes {
  const { model = specs().model, dtype = 'float32', device = 'cpu', ranks = 1 } = more;
  const layout = more.layout ?? evenLayout(ranks, model.numHeads / ranks, model.numKvHeads / ranks);
  const kernels = more.kernels === undefined ? {} : { kernels: more.kernels };
  return opSizes({ model, run: { dtype }, parameters: parameterTable(model), layout, device, ...kernels });
}

export const tiles = (count: number): AttributeShape => ({ tiles: count });
