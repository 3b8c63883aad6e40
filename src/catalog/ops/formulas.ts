/** The formulas of a row applied to an op, with its tiles. */
import { NONE, type OpFacts, type OpRow, type OpWork } from './row.js';
import type { OpSizes } from './sizes.js';
import { OP_ROWS, type OpShape } from './table.js';
import { type AccessShape, type AttributeShape, type BufferShape, bufferAt, rowBytes, rowsOf } from './views.js';

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

/** FLOPs, and bytes that pass through device memory. */
export function opWork(op: OpShape, attribute: AttributeShape | undefined, buffers: readonly BufferShape[], sizes: OpSizes): OpWork {
  const row: OpRow = OP_ROWS[op.kind];
  const facts = factsOf(row, op, attribute, buffers, sizes);
  const flops = row.flops(facts);
  return {
    matmulFlops: flops.matmulFlops ?? 0,
    attentionForwardFlops: flops.attentionForwardFlops ?? 0,
    attentionBackwardFlops: flops.attentionBackwardFlops ?? 0,
    hbmBytes: hbmBytes(row, facts),
  };
}

/** Kernels that the host launches for an op. */
export function numKernels(op: OpShape, attribute: AttributeShape | undefined, buffers: readonly BufferShape[], sizes: OpSizes): number {
  const row: OpRow = OP_ROWS[op.kind];
  const facts = factsOf(row, op, attribute, buffers, sizes);
  return facts.tiles * row.kernels(facts);
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
  const rows = rowsOf(op.reads[0]?.rows);
  const tiles = row.tiled && attribute.tiles !== undefined ? Math.max(1, Math.min(attribute.tiles, rows)) : 1;
  return { op, attribute, rows, buffers, sizes, tiles };
}

/**
 * Views read once and written once (accumulated: both), temporaries written and read once, and the weights. What is the same for
 * every tile, weights and gradient regions, counts once for each. An upper estimate for kernels that fuse.
 */
function hbmBytes(row: OpRow, facts: TiledFacts): number {
  const { op, sizes } = facts;
  if (row.hbmBytes !== undefined) return overTiles(facts, row.hbmBytes);
  const views = touched(op.reads, facts) + touched(op.writes, facts) + 2 * touched(op.accumulates, facts);
  if (row.onChip) return views;
  return (
    views + 2 * overTiles(facts, (tile) => Math.ceil(row.temporaries(tile))) + facts.tiles * (row.weightElements?.(sizes) ?? 0) * sizes.w
  );
}

/** Bytes of views; those that have the op's rows are cut into tiles with it, others are touched by every tile. */
function touched(accesses: readonly AccessShape[], { rows, tiles, buffers }: TiledFacts): number {
  let bytes = 0;
  for (const access of accesses) {
    const count = rowsOf(access.rows);
    bytes += count * rowBytes(bufferAt(access.buffer, buffers)) * (count === rows ? 1 : tiles);
  }
  return bytes;
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
