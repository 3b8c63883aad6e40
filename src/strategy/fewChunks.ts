/** Programs of a few chunks that stand for one of many: how many they need, and what they do not show. */
import type { ScratchFormula } from '../schedule/build.js';
import { mostRangeChunks } from '../schedule/policies/index.js';
import type { Strategy } from '../spec/strategy.js';
import type { Setting } from './setting.js';

/**
 * Chunks of one tensor that are in use at once, at most: of the layer inputs three, since pre runs a chunk ahead of attention and
 * post a chunk behind it, and the output that post writes. A ring has this many slots and prefetchDepth - 1 more.
 */
const MOST_IN_USE = 4;
/** Tiles of keys at once: one that is attended to, and the one that the next chunk's keys are written to. */
const MOST_TILES_IN_USE = 2;

/** A schedule of a few chunks that stands for one of many. */
export interface Few {
  readonly numChunks: number;
  /** Of keys, in the longest range of an attention op. */
  readonly rangeChunks: number;
}

/**
 * Where the full schedule cuts what queries see into ranges, so do the few chunks: into ranges that are longer than a tile or a window, so
 * that only what was cut is as long.
 */
export function fewOf(strategy: Strategy, model: Setting['model']): Few {
  const numChunks = fewChunks(strategy, model);
  const most = mostRangeChunks(strategy);
  if (strategy.numChunks <= most) return { numChunks: Math.min(numChunks, strategy.numChunks), rangeChunks: most };
  const rangeChunks = Math.min(most, Math.max(MIN_RANGE_CHUNKS, strategy.kvTileChunks + 1, windowChunks(strategy, model)));
  const enough = Math.max(numChunks, MIN_RANGES * rangeChunks);
  return strategy.numChunks <= enough ? { numChunks: strategy.numChunks, rangeChunks: most } : { numChunks: enough, rangeChunks };
}

/** Of the few chunks: with this many ranges there is a first one, one that is merged, and one that is merged after another. */
const MIN_RANGES = 3;
const MIN_RANGE_CHUNKS = 2;

/**
 * Where the last queries meet all keys at once they meet all of the full schedule's, and where keys were cut into ranges, a whole range
 * of it; over a tile or in a window no more than here.
 */
export function withAllKeys(formula: ScratchFormula, strategy: Strategy, few: Few): ScratchFormula {
  const { numChunks, chunkTokens, kvTileChunks } = strategy;
  const most = mostRangeChunks(strategy);
  const isCut = numChunks > most;
  const missingTokens = (isCut ? most - few.rangeChunks : numChunks - few.numChunks) * chunkTokens;
  return (op, attribute, buffers) => {
    const { kv } = op;
    if (kv === undefined || missingTokens === 0) return formula(op, attribute, buffers);
    const meetsAll = isCut
      ? kv.end - kv.start === few.rangeChunks * chunkTokens
      : kv.start === 0 && kv.end > kvTileChunks * chunkTokens && op.tokens.end === few.numChunks * chunkTokens;
    return formula(meetsAll ? { ...op, kv: { start: kv.start, end: kv.end + missingTokens } } : op, attribute, buffers);
  };
}

/** One more than the longest ring has slots, so that every ring has its full length and comes around; and more than a window reaches. */
export function fewChunks(strategy: Strategy, model: Setting['model']): number {
  const { prefetchDepth, kvTileChunks } = strategy;
  return Math.max(MOST_IN_USE + prefetchDepth, (MOST_TILES_IN_USE + prefetchDepth) * kvTileChunks, windowChunks(strategy, model));
}

/** One more than the widest window touches; 0 where there is none. */
export function windowChunks({ chunkTokens }: Strategy, { windows }: Setting['model']): number {
  return Math.max(0, ...windows.map((window) => (window === null ? 0 : 2 + Math.ceil((window - 1) / chunkTokens))));
}
