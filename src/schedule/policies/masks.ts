/** Which keys the queries of a chunk attend to, cut into as few ops as the kernel and the staging of k and v allow. */
import type { Strategy } from '../../spec/strategy.js';
import type { Attribute, Range } from '../op.js';
import { type PolicyContext, range } from './context.js';

/** One attention op: a range of chunks of keys, and its mask. */
export interface KeyRange {
  readonly chunks: Range;
  readonly attribute: Attribute;
}

const FULL: Attribute = { mask: { kind: 'full' } };
const CAUSAL: Attribute = { mask: { kind: 'causal' } };

/**
 * Keys of an attention op, where a chunk has no more. FlashAttention's backward makes dk and dv of all of an op's keys, for every query
 * head, beside the sums they are added to: some 18 GiB for the 7M keys that a rank of 8 has of Llama-3-8B, which a few ranges more do not.
 */
const MOST_RANGE_TOKENS = 512 * 1024;

/** From 64M tokens on ranges grow with the sequence, so that ops do not grow with its square. */
const MOST_RANGES = 128;

/** Chunks of keys that an attention op sees together, at most. */
export function mostRangeChunks({ chunkTokens, numChunks }: Pick<Strategy, 'chunkTokens' | 'numChunks'>): number {
  return Math.max(1, Math.floor(MOST_RANGE_TOKENS / chunkTokens), Math.ceil(numChunks / MOST_RANGES));
}

/**
 * All keys that chunk `chunk` of the queries sees. `tileChunks` chunks are staged together; undefined: all are at hand. The
 * tile that ends with the chunk itself comes first, so that every row has seen a key before partial results are merged.
 */
export function keyRanges(
  context: PolicyContext,
  chunk: number,
  window: number | null,
  tileChunks: number | undefined,
): readonly KeyRange[] {
  const first = firstChunk(context, chunk, window);
  const size = tileChunks ?? chunk + 1;
  const tiles: KeyRange[] = [];
  for (let start = Math.floor(first / size) * size; start <= chunk; start += size) {
    tiles.unshift(...keyRangesWithin(context, chunk, window, range(start, start + size)));
  }
  return tiles;
}

/**
 * What chunk `chunk` of the queries sees of a tile of keys, the last of them first: nothing where they are all after it, or a window leaves
 * them out; several ranges where the tile is longer than a range may be.
 */
export function keyRangesWithin(context: PolicyContext, chunk: number, window: number | null, tile: Range): readonly KeyRange[] {
  const { rangeChunks } = context;
  if (tile.end - tile.start <= rangeChunks) return keysOfRange(context, chunk, window, tile);
  const ranges: KeyRange[] = [];
  for (let start = tile.start; start < Math.min(tile.end, chunk + 1); start += rangeChunks) {
    ranges.unshift(...keysOfRange(context, chunk, window, range(start, Math.min(start + rangeChunks, tile.end))));
  }
  return ranges;
}

function keysOfRange(context: PolicyContext, chunk: number, window: number | null, tile: Range): readonly KeyRange[] {
  const { strategy, masks } = context;
  const keys = range(Math.max(tile.start, firstChunk(context, chunk, window)), Math.min(tile.end, chunk + 1));
  if (keys.start >= keys.end) return [];
  const lastQuery = (chunk + 1) * strategy.chunkTokens - 1;
  if (window !== null && lastQuery - keys.start * strategy.chunkTokens >= window) {
    if (!masks.window) throw new RangeError('the attention kernel has no sliding window');
    return [{ chunks: keys, attribute: { mask: { kind: 'window', window } } }];
  }
  if (keys.end <= chunk) return [{ chunks: keys, attribute: FULL }];
  const isSquare = keys.end - keys.start === 1;
  if (isSquare || masks.rectangle) return [{ chunks: keys, attribute: CAUSAL }];
  return [
    { chunks: range(chunk, chunk + 1), attribute: CAUSAL },
    { chunks: range(keys.start, chunk), attribute: FULL },
  ];
}

/** The first chunk with a key that some query of the chunk sees. */
function firstChunk({ strategy: { chunkTokens } }: PolicyContext, chunk: number, window: number | null): number {
  if (window === null) return 0;
  return Math.floor(Math.max(0, chunk * chunkTokens - window + 1) / chunkTokens);
}
