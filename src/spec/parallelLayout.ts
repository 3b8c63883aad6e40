/** Which ranks share a sequence, and which heads each of them owns after the all-to-all. Computed once, by parallelLayout(). */
import { FpdtError } from './errors.js';

/** In a head list: no head. Its tensor is zero on the way in, and ignored on the way out. */
export const PADDED_HEAD = -1;

/** Per sequence parallel rank the heads of its head-sharded views, in order; PADDED_HEAD where there is none. */
export interface HeadMap {
  readonly query: readonly (readonly number[])[];
  readonly keyValue: readonly (readonly number[])[];
}

export interface ParallelLayout {
  /** Global ranks that share a sequence, in the order of their tokens; one list a replica. */
  readonly sequenceGroups: readonly (readonly number[])[];
  readonly heads: HeadMap;
}

export interface HeadCounts {
  readonly numHeads: number;
  readonly numKvHeads: number;
}

export interface ParallelSizes {
  readonly sequenceParallelSize: number;
  readonly dataParallelSize: number;
}

/** Sizes from 1 to numHeads, and numHeads a multiple of numKvHeads. Throws `too-many-ranks-for-heads` or `invalid-value`. */
export function parallelLayout(heads: HeadCounts, sizes: ParallelSizes, ranksPerNode: number): ParallelLayout {
  const { numHeads, numKvHeads } = heads;
  if (sizes.sequenceParallelSize > numHeads) {
    throw new FpdtError(`${sizes.sequenceParallelSize} sequence parallel ranks have only ${numHeads} query heads to share`, {
      code: 'too-many-ranks-for-heads',
      hint: `use a sequenceParallelSize of at most ${numHeads}`,
    });
  }
  if (numHeads % numKvHeads !== 0) {
    throw new FpdtError(`${numHeads} query heads do not form equal groups for ${numKvHeads} key/value heads`, { code: 'invalid-value' });
  }
  return { sequenceGroups: sequenceGroups(sizes, ranksPerNode), heads: headMap(heads, sizes.sequenceParallelSize) };
}

/** Query heads of a rank, padded ones included. */
export function ownHeads({ heads }: ParallelLayout): number {
  return heads.query[0]?.length ?? 0;
}

/** Key/value heads of a rank, copies and padded ones included. Query head j uses entry floor(j / (ownHeads / ownKvHeads)). */
export function ownKvHeads({ heads }: ParallelLayout): number {
  return heads.keyValue[0]?.length ?? 0;
}

/** Numbers of groups of equal size, each of whole key/value heads, that a rank may attend with one after the other: 1 first. */
export function headGroupCounts(layout: ParallelLayout): readonly number[] {
  const own = ownKvHeads(layout);
  return Array.from({ length: own }, (_, i) => i + 1).filter((groups) => own % groups === 0);
}

/** The most places that one key/value head stands in: 1 where none is copied. */
export function kvCopies({ heads }: ParallelLayout): number {
  const places = new Map<number, number>();
  for (const head of heads.keyValue.flat()) if (head !== PADDED_HEAD) places.set(head, (places.get(head) ?? 0) + 1);
  return Math.max(...places.values());
}

/** Padded query heads of all ranks of a group together: attention work that nobody reads. */
export function paddedHeads({ heads }: ParallelLayout): number {
  return heads.query.flat().filter((head) => head === PADDED_HEAD).length;
}

/**
 * Ranks are numbered node by node (torchrun, DeepSpeed's launcher). A group of up to a node's ranks stays inside one: every node fills
 * as many as it has ranks for, which are consecutive, and the ranks left over, if the size does not divide the node's, form groups
 * across nodes in their order. A larger group takes consecutive ranks, hence whole nodes where it can. Groups come in the order of
 * their first ranks.
 */
function sequenceGroups(
  { sequenceParallelSize: size, dataParallelSize }: ParallelSizes,
  ranksPerNode: number,
): readonly (readonly number[])[] {
  const ranks = range(0, size * dataParallelSize);
  const inside = (rank: number): boolean => {
    const node = rank - (rank % ranksPerNode);
    const nodeRanks = Math.min(ranksPerNode, ranks.length - node);
    return rank - node < nodeRanks - (nodeRanks % size);
  };
  const groups = [
    ...pieces(ranks.filter(inside), size),
    ...pieces(
      ranks.filter((rank) => !inside(rank)),
      size,
    ),
  ];
  return groups.sort(([a = 0], [b = 0]) => a - b);
}

/**
 * Query heads are dealt out contiguously, as many to each rank as the fullest has. Where the key/value heads divide the ranks, each
 * stands on several, which split its query heads. Everywhere else a rank's query heads go by runs of the longest length that never
 * crosses from one key/value head's group into another's, and each run has its own entry: where the ranks divide the key/value
 * heads a run is a whole group, so nothing is copied; at worst it is a single query head.
 */
function headMap({ numHeads, numKvHeads }: HeadCounts, ranks: number): HeadMap {
  const group = numHeads / numKvHeads;
  const own = Math.ceil(numHeads / ranks);
  const replicas = ranks % numKvHeads === 0 ? ranks / numKvHeads : 0;
  const query = range(0, ranks).map((rank) =>
    replicas === 0
      ? padded(range(rank * own, (rank + 1) * own), numHeads)
      : padded(range((rank % replicas) * own, ((rank % replicas) + 1) * own), group).map((head) =>
          head === PADDED_HEAD ? head : Math.floor(rank / replicas) * group + head,
        ),
  );
  const run = replicas === 0 ? greatestCommonDivisor(own, group) : own;
  const keyValue = query.map((heads) =>
    pieces(heads, run).map(([first = PADDED_HEAD]) => (first === PADDED_HEAD ? PADDED_HEAD : Math.floor(first / group))),
  );
  return { query, keyValue };
}

function padded(heads: readonly number[], end: number): readonly number[] {
  return heads.map((head) => (head < end ? head : PADDED_HEAD));
}

function pieces(values: readonly number[], size: number): readonly (readonly number[])[] {
  return range(0, Math.ceil(values.length / size)).map((piece) => values.slice(piece * size, (piece + 1) * size));
}

function range(start: number, end: number): readonly number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
