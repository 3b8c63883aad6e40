/**
 * What strategies of a setting compute at least: every output kept, and products of as many layers as there is room for. Tiles of the loss,
 * which are larger in the end, can take off a little yet.
 */
import { roomBytes } from '../../memory/ledger.js';
import type { Strategy } from '../../spec/strategy.js';
import type { Evaluator } from '../evaluator.js';
import { hasWindows, type Setting } from '../setting.js';
import { keptBytes, type Uniform } from './assemble.js';
import type { FilledSegment } from './fill.js';
import { frames } from './frames.js';

/** What can be faster by no more than this is not looked at. */
export const WORTH_A_LOOK = 1.002;

export interface Bound {
  /** In the number of chunks that computes least. */
  readonly seconds: number;
  /** Layers whose products are worth keeping, at most, and what keeping those of one saves. */
  readonly mostInternals: number;
  readonly internalSeconds: number;
  /** With windows, by number of chunks: what it computes more than the best of them, since smaller chunks see fewer keys outside. */
  readonly moreSeconds: ReadonlyMap<number, number> | undefined;
}

/** Among `counts` of chunks. Without windows the fewest compute least. */
export function boundOf(setting: Setting, evaluate: Evaluator, uniform: Uniform, counts: readonly number[]): Bound {
  const { model, places } = setting;
  const [[fewest = 1], [roomiest]] = [counts, frames(setting)];
  if (roomiest === undefined) return { seconds: 0, mostInternals: 0, internalSeconds: 0, moreSeconds: undefined };
  const isWindowed = hasWindows(model);
  const computing = (numChunks: number, change: Partial<FilledSegment> = {}): number =>
    evaluate.computeSeconds(setting, uniform(roomiest, numChunks, change));
  const seconds = (isWindowed ? counts : [fewest]).map((count): readonly [number, number] => [count, computing(count)]);
  const [quickest, least] = seconds.reduce((best, one) => (one[1] < best[1] ? one : best));
  const most = numInternals(setting, evaluate, uniform(roomiest, fewest));
  const internalSeconds = most === 0 ? 0 : (least - computing(quickest, { internals: places.device })) / model.numLayers;
  const mostInternals = least > WORTH_A_LOOK * (least - most * internalSeconds) ? most : 0;
  const moreSeconds = isWindowed ? new Map(seconds.map(([count, one]) => [count, one - least])) : undefined;
  return { seconds: least - mostInternals * internalSeconds, mostInternals, internalSeconds, moreSeconds };
}

/** Layers whose products the device has room for beside what is always there. */
function numInternals(setting: Setting, evaluate: Evaluator, strategy: Strategy): number {
  const { model, run } = setting;
  const { internals } = keptBytes(setting, strategy);
  const device = evaluate.memory(setting, strategy).pools.find(({ kind }) => kind === 'device');
  if (device === undefined || internals === 0 || (run.segmentLayers ?? 1) > 1) return 0;
  const free = roomBytes(device) - device.persistent.reduce((sum, { bytes }) => sum + bytes, 0);
  return Math.min(model.numLayers, Math.max(0, Math.floor(free / internals)));
}
