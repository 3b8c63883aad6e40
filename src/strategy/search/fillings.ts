/** What of a whole step may be kept beside what a frame needs in so many chunks. */
import { excessBytes, type MemoryLedger } from '../../memory/ledger.js';
import { RECOMPUTE } from '../../spec/strategy.js';
import type { Evaluator } from '../evaluator.js';
import type { Setting } from '../setting.js';
import type { Uniform } from './assemble.js';
import { type FilledSegment, type Filling, fill, type LayerCosts, type Options, optionsOf, type Room } from './fill.js';
import type { Frame } from './frames.js';
import { type Keeping, keepingBeside } from './rooms.js';

export interface Left extends Keeping {
  /** The room where outputs are recomputed, where that is less: backward then has one of a whole layer on the device. */
  readonly recomputing?: () => readonly Room[];
}

/** More than to rebuild all other layers. */
const MUCH = 1e6;

export class Fillings {
  private readonly setting: Setting;
  private readonly evaluate: Evaluator;
  private readonly uniform: Uniform;
  private readonly mostInternals: number;
  private options: Options | undefined;
  private hasCosts = false;

  constructor(setting: Setting, evaluate: Evaluator, uniform: Uniform, mostInternals: number) {
    this.setting = setting;
    this.evaluate = evaluate;
    this.uniform = uniform;
    this.mostInternals = mostInternals;
  }

  know(costs: LayerCosts): void {
    this.hasCosts = true;
    this.options = optionsOf(costs, this.mostInternals, this.setting.run.segmentLayers);
  }

  beside(frame: Frame, numChunks: number): Left {
    const keeping = (change: Partial<FilledSegment>): Keeping =>
      keepingBeside(this.setting, this.evaluate, this.uniform(frame, numChunks, change));
    // On the device, where layer inputs need no more than themselves: what is elsewhere needs more, and shows when it is looked at.
    const recomputed = { attentionOutput: RECOMPUTE, checkpoints: this.setting.places.device };
    return { ...keeping({}), recomputing: () => keeping(recomputed).rooms };
  }

  /** As if nothing took more room where outputs are recomputed: known sooner, and as a rule none is faster. */
  atBest({ bytes, rooms }: Left): Filling | undefined {
    return this.fill({ bytes, rooms });
  }

  fill({ bytes, rooms, recomputing }: Left): Filling | undefined {
    const { model, run } = this.setting;
    // Until costs are known: whether everything can be kept does not hang on them, and nothing is recomputed that need not be.
    const anyCosts = { recompute: Array.from({ length: model.numLayers }, () => MUCH), rebuild: 1, rerun: 1, file: 1, internals: 1 };
    this.options ??= optionsOf(anyCosts, this.mostInternals, run.segmentLayers);
    return fill(this.options, bytes, rooms, recomputing);
  }

  /** What it costs at least, infinite where there is none: as long as no costs are known perhaps nothing. */
  leastSeconds(filled: Filling | undefined): number {
    if (filled === undefined) return Number.POSITIVE_INFINITY;
    return this.hasCosts ? filled.seconds : 0;
  }
}

export function isRecomputing(filled: Filling | undefined): boolean {
  return filled?.segments.some(({ attentionOutput }) => attentionOutput === RECOMPUTE) === true;
}

/** Where a filling turned out too large: what it has in such a pool, less what is too much. */
export function withLess(left: Left, filled: Filling, { pools }: MemoryLedger): Left {
  const excess = new Map(pools.map((pool) => [pool.pool, excessBytes(pool)]));
  const less = (rooms: readonly Room[]): readonly Room[] =>
    rooms.map((room, at) => {
      const missing = excess.get(room.pool) ?? 0;
      return missing === 0 ? room : { ...room, bytes: room.bytes - (filled.free[at] ?? 0) - missing };
    });
  if (!isRecomputing(filled)) return { ...left, rooms: less(left.rooms) };
  const rooms = less((left.recomputing ?? (() => left.rooms))());
  return { ...left, recomputing: () => rooms };
}
