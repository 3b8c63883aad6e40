/** Placement of items that may overlap in memory only where they do not conflict. */

/** Sizes in bytes, a row-major square conflict matrix, an order of all items, an alignment in bytes. */
export interface PlaceInput {
  readonly sizes: Float64Array;
  readonly conflicts: Uint8Array;
  readonly order: Int32Array;
  readonly alignment: number;
}

/** Greedy best fit: in `order`, each item takes the smallest gap between placed conflicting items that it fits in. Returns offsets. */
export function placeByConflicts({ sizes, conflicts, order, alignment }: PlaceInput): Float64Array {
  const offsets = new Float64Array(sizes.length).fill(-1);
  /** Placed items by ascending offset; equal offsets in order of placement. */
  const placed: number[] = [];
  for (const item of order) {
    offsets[item] = bestFit(item, placed, { sizes, conflicts, alignment }, offsets);
    insertByOffset(item, placed, offsets);
  }
  return offsets;
}

function bestFit(
  item: number,
  placed: readonly number[],
  { sizes, conflicts, alignment }: Omit<PlaceInput, 'order'>,
  offsets: Float64Array,
): number {
  const size = sizes[item] ?? 0;
  let end = 0;
  let best = -1;
  let bestGap = Number.POSITIVE_INFINITY;
  for (const other of placed) {
    if (conflicts[item * sizes.length + other] !== 1) continue;
    const offset = offsets[other] ?? 0;
    const gap = offset - end;
    if (gap >= size && gap < bestGap) {
      best = end;
      bestGap = gap;
    }
    end = Math.max(end, alignUp(offset + (sizes[other] ?? 0), alignment));
  }
  return best >= 0 ? best : end;
}

function insertByOffset(item: number, placed: number[], offsets: Float64Array): void {
  const offset = offsets[item] ?? 0;
  let at = placed.length;
  while (at > 0 && (offsets[placed[at - 1] ?? 0] ?? 0) > offset) at -= 1;
  placed.splice(at, 0, item);
}

export function alignUp(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}
