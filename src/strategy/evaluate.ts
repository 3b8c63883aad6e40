/**
 * What a strategy needs, without building its whole schedule: rings, temporaries and who is alive with whom do not depend on the
 * number of chunks once there are a few, so a candidate with many chunks is built with a few of the same size, and what is held for
 * the whole sequence is given its full size. The layout is then that of the full schedule.
 */
import { layoutSchedule, placeBuffers } from '../address/layout.js';
import { type MemoryLedger, buildLedger, scheduleUse } from '../memory/ledger.js';
import { type ScratchFormula, buildSchedule } from '../schedule/build.js';
import type { Buffer } from '../schedule/buffer.js';
import { toBuffer } from '../schedule/passes/place.js';
import { type PolicyContext, declareTensors, mostRangeChunks } from '../schedule/policies/index.js';
import type { Schedule } from '../schedule/schedule.js';
import type { Strategy } from '../spec/strategy.js';
import { type Setting, policyContext, scratchFormula } from './setting.js';

/**
 * Chunks of one tensor that are in use at once, at most: of the layer inputs three, since pre runs a chunk ahead of attention and
 * post a chunk behind it, and the output that post writes. A ring has this many slots and prefetchDepth - 1 more.
 */
const MOST_IN_USE = 4;

export interface Built {
  readonly schedule: Schedule;
  readonly memory: MemoryLedger;
}

/** The schedule of a strategy, its addresses and entry masks, and its memory. */
export function buildStrategy(setting: Setting, strategy: Strategy): Built {
  const schedule = layoutSchedule(buildSchedule(policyContext(setting, strategy), setting.machine, scratchFormula(setting)));
  return { schedule, memory: ledgerOf(setting, schedule) };
}

/** The memory of a strategy, in time that does not grow with its number of chunks. */
export function estimateMemory(setting: Setting, strategy: Strategy): MemoryLedger {
  const context = policyContext(setting, strategy);
  const few = fewOf(strategy, setting.model);
  const { numChunks } = few;
  if (strategy.numChunks <= numChunks) {
    const schedule = placeBuffers(buildSchedule(context, setting.machine, scratchFormula(setting)));
    return ledgerOf(setting, schedule);
  }
  const small = { ...context, rangeChunks: few.rangeChunks, strategy: { ...strategy, numChunks } };
  const built = buildSchedule(small, setting.machine, withAllKeys(scratchFormula(setting), strategy, few));
  const schedule = placeBuffers({ ...built, buffers: built.buffers.map(toFullSize(context)) });
  return ledgerOf(setting, schedule);
}

/** A schedule of a few chunks that stands for one of many. */
interface Few {
  readonly numChunks: number;
  /** Of keys, in the longest range of an attention op. */
  readonly rangeChunks: number;
}

/**
 * Where the full schedule cuts what queries see into ranges, so do the few chunks: into ranges that are longer than a tile or a window, so
 * that only what was cut is as long.
 */
function fewOf(strategy: Strategy, model: Setting['model']): Few {
  const numChunks = fewChunks(strategy, model);
  const most = mostRangeChunks(strategy);
  if (strategy.numChunks <= most) return { numChunks, rangeChunks: most };
  const rangeChunks = Math.min(most, Math.max(MIN_RANGE_CHUNKS, strategy.kvTileChunks + 1, windowChunks(strategy, model)));
  return { numChunks: Math.max(numChunks, MIN_RANGES * rangeChunks), rangeChunks };
}

/** Of the few chunks: with this many ranges there is a first one, one that is merged, and one that is merged after another. */
const MIN_RANGES = 3;
const MIN_RANGE_CHUNKS = 2;

/**
 * Where the last queries meet all keys at once they meet all of the full schedule's, and where keys were cut into ranges, a whole range
 * of it; over a tile or in a window no more than here.
 */
function withAllKeys(formula: ScratchFormula, strategy: Strategy, few: Few): ScratchFormula {
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
  return Math.max((MOST_IN_USE + prefetchDepth) * kvTileChunks, windowChunks(strategy, model));
}

/** One more than the widest window touches; 0 where there is none. */
export function windowChunks({ chunkTokens }: Strategy, { windows }: Setting['model']): number {
  return Math.max(0, ...windows.map((window) => (window === null ? 0 : 2 + Math.ceil((window - 1) / chunkTokens))));
}

/** A buffer as the full schedule has it: tensors as declared for all chunks; the rings that moveData added stay. */
function toFullSize(context: PolicyContext): (buffer: Buffer) => Buffer {
  const declared = new Map(declareTensors(context).map((tensor) => [tensor.name, tensor]));
  return (buffer) => {
    const tensor = declared.get(buffer.name);
    return tensor === undefined ? buffer : toBuffer(tensor, buffer.id, context.places);
  };
}

function ledgerOf(setting: Setting, schedule: Schedule): MemoryLedger {
  const arenaBytes = Object.fromEntries(schedule.pools.map(({ name, bytes }) => [name, bytes]));
  return buildLedger({ ...setting, arenaBytes, use: scheduleUse(schedule) });
}
