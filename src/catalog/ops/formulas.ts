/** The formulas of a row applied to an op, with its tiles. */
import { NONE, type OpFacts, type OpRow, type OpWork } from './row.js';
import type { OpSizes } from './sizes.js';
import { OP_ROWS, type OpKind, type OpShape } from './table.js';
import { type AttributeShape, type BufferShape, rowsOf } from './views.js';

const NO_ATTRIBUTE: AttributeShape = {};

/** Peak bytes of the tensors that an op makes inside: those of its largest tile. */
export function temporaryBytes(
  op: OpShape,
  attribute: AttributeShape | undefined,
  buffers: readonly BufferShape[],
  sizes: OpSizes,
): number {
  const row: OpRow = OP_ROWS[op.kind];
  if (row.temporaries === NONE) return 0;
  const facts = factsOf(row, op, attribute, buffers, sizes);
  return Math.ceil(row.temporaries({ ...facts, rows: Math.ceil(facts.rows / facts.tiles) }));
}

/** Whether some op of a kind makes tensors inside. */
export function hasTemporaries(kind: OpKind): boolean {
  const row: OpRow = OP_ROWS[kind];
  return row.temporaries !== NONE;
}

/** FLOPs, bytes and kernels of an op, of all its tiles together. */
export function opWork(op: OpShape, attribute: AttributeShape | undefined, buffers: readonly BufferShape[], sizes: OpSizes): OpWork {
  const row: OpRow = OP_ROWS[op.kind];
  const facts = factsOf(row, op, attribute, buffers, sizes);
  const flops = row.flops(facts);
  const { weightBytes } = row;
  return {
    matmulFlops: flops.matmulFlops ?? 0,
    attentionForwardFlops: flops.attentionForwardFlops ?? 0,
    attentionBackwardFlops: flops.attentionBackwardFlops ?? 0,
    weightBytes: weightBytes === undefined ? 0 : overTiles(facts, weightBytes),
    elementBytes: overTiles(facts, row.elementBytes),
    kernels: overTiles(facts, row.kernels),
  };
}

/** Rows of an op's tiles, and how many tiles have so many: they differ by at most one row. */
export function tileRows(op: OpShape, attribute: AttributeShape | undefined): readonly (readonly [rows: number, count: number])[] {
  const { rows, tiles } = tilesOf(OP_ROWS[op.kind], op, attribute);
  const smaller = Math.floor(rows / tiles);
  const numLarger = rows % tiles;
  return numLarger === 0
    ? [[smaller, tiles]]
    : [
        [smaller + 1, numLarger],
        [smaller, tiles - numLarger],
      ];
}

interface TiledFacts extends OpFacts {
  /** 1 where the op is not cut. */
  readonly tiles: number;
}

function factsOf(
  row: OpRow,
  op: OpShape,
  attribute: AttributeShape = NO_ATTRIBUTE,
  buffers: readonly BufferShape[],
  sizes: OpSizes,
): TiledFacts {
  return { op, attribute, buffers, sizes: ofGroup(sizes, attribute), ...tilesOf(row, op, attribute) };
}

const grouped = new WeakMap<OpSizes, Map<number, OpSizes>>();

/** What a rank holds of head-sharded views where they are of one group of its heads. */
export function ofGroup(sizes: OpSizes, { heads }: AttributeShape = NO_ATTRIBUTE): OpSizes {
  if (heads === undefined) return sizes;
  const { groups } = heads;
  const known = grouped.get(sizes) ?? new Map<number, OpSizes>();
  grouped.set(sizes, known);
  const { ownQ, ownKv, ownHeads } = sizes;
  const found = known.get(groups) ?? { ...sizes, ownQ: ownQ / groups, ownKv: ownKv / groups, ownHeads: ownHeads / groups };
  known.set(groups, found);
  return found;
}

function tilesOf(row: OpRow, op: OpShape, { tiles }: AttributeShape = NO_ATTRIBUTE): { readonly rows: number; readonly tiles: number } {
  const rows = rowsOf(op.reads[0]?.rows);
  return { rows, tiles: row.tiled && tiles !== undefined ? Math.max(1, Math.min(tiles, rows)) : 1 };
}

/** The sum over all tiles. Tiles differ by at most one row: tile i is rows [floor(R i / n), floor(R (i + 1) / n)). */
function overTiles(facts: TiledFacts, amount: (facts: OpFacts) => number): number {
  const { rows, tiles } = facts;
  if (tiles === 1) return amount(facts);
  const smaller = Math.floor(rows / tiles);
  const numLarger = rows % tiles;
  const of = (count: number): number => amount({ ...facts, rows: count });
  return (numLarger === 0 ? 0 : numLarger * of(smaller + 1)) + (tiles - numLarger) * of(smaller);
}
