/**
 * The fastest strategy that fits. Frames are tried from the one that copies least, each with the fewest chunks that fit and with more; what
 * is kept for the whole step fills the room that is left. Every strategy that counts has its exact memory and its estimated seconds. A
 * frame that copies more than another can only be faster where it leaves room to keep more, and nothing is faster than computing alone.
 */
import { excessBytes, type MemoryLedger, roomBytes } from '../../memory/ledger.js';
import { RECOMPUTE, type Strategy } from '../../spec/strategy.js';
import { chunkCounts } from '../candidates.js';
import type { Evaluator } from '../evaluator.js';
import type { Setting } from '../setting.js';
import type { Steps } from '../steps.js';
import { assemble, assembleUniform, keptBytes, pinnedPool } from './assemble.js';
import { layerCosts } from './costs.js';
import { type FilledSegment, type Filling, fill, type KeptBytes, type Options, optionsOf, type Room } from './fill.js';
import { type Frame, frames, neighbours } from './frames.js';

export interface Found {
  readonly strategy: Strategy;
  readonly memory: MemoryLedger;
  readonly seconds: number;
}

/** Beyond the fewest that fit, this many larger numbers of chunks are tried: each leaves more room, and costs more launches. */
const MORE_COUNTS = 4;
/** Of a chunk; where the search for the fewest chunks that fit begins. */
const LIKELY_LOCAL_TOKENS = 32768;
/** Fillings that turn out too large are tried again with that much less room. */
const MAX_REFILLS = 6;
/** A strategy this close to what computing alone takes where every output is kept is not bettered. */
const GOOD_ENOUGH = 1.005;
/** Neighbours are tried as long as they are faster by this. */
const WORTH_MORE = 1.001;
/** What can be faster by no more than this is not looked at. */
const WORTH_A_LOOK = 1.002;

/** Undefined where no strategy fits. A step for each frame and number of chunks. */
export function searchAll(setting: Setting, evaluate: Evaluator): Steps<Found | undefined> {
  return new Search(setting, evaluate).run();
}

/**
 * What needs least memory of each pool: as many chunks as there can be, outputs recomputed or kept on the host, and checkpoints as far
 * apart as there are of them, since the states inside a segment need room too.
 */
export function leanest(setting: Setting): readonly Strategy[] {
  const pinned = pinnedPool(setting);
  const numChunks = chunkCounts(setting.run).at(-1) ?? 1;
  const length = setting.run.segmentLayers ?? Math.ceil(Math.sqrt(setting.model.numLayers));
  const kept = [RECOMPUTE, pinned].map((attentionOutput): FilledSegment => ({ length, checkpoints: pinned, attentionOutput }));
  return frames(setting).flatMap((frame) => kept.map((segment) => assembleUniform(setting, frame, numChunks, segment)));
}

interface Candidate extends Found {
  readonly frame: Frame;
  /** What its filling costs beside keeping everything. */
  readonly fillSeconds: number;
}

class Search {
  private readonly setting: Setting;
  private readonly evaluate: Evaluator;
  private readonly counts: readonly number[];
  /** Every layer's output and input on the host. */
  private readonly allPinned: FilledSegment;
  private best: Candidate | undefined;
  /** Layers whose products the device has room for beside model states, at most, and what keeping those of one saves. */
  private readonly mostInternals: number;
  private readonly internalSeconds: number;
  /** Of computing alone where every output and so many products are kept, in as few chunks as there can be. */
  private readonly boundSeconds: number;
  private hasCosts = false;
  private options: Options | undefined;
  private readonly tried = new Set<string>();
  private readonly ranges = new Map<string, Strategy['layers']>();

  constructor(setting: Setting, evaluate: Evaluator) {
    const pinned = pinnedPool(setting);
    this.setting = setting;
    this.evaluate = evaluate;
    this.counts = withHalves(chunkCounts(setting.run));
    this.allPinned = { length: 1, checkpoints: pinned, attentionOutput: pinned };
    const [fewest = 1] = this.counts;
    const [roomiest] = frames(setting);
    const computing = (change: Partial<FilledSegment>): number =>
      roomiest === undefined ? 0 : evaluate.computeSeconds(setting, this.uniform(roomiest, fewest, change));
    const all = computing({});
    const most = roomiest === undefined ? 0 : this.numInternals(this.uniform(roomiest, fewest));
    this.internalSeconds = most === 0 ? 0 : (all - computing({ internals: setting.places.device })) / setting.model.numLayers;
    this.mostInternals = all > WORTH_A_LOOK * (all - most * this.internalSeconds) ? most : 0;
    this.boundSeconds = all - this.mostInternals * this.internalSeconds;
  }

  *run(): Steps<Found | undefined> {
    const { run } = this.setting;
    const tokens = (numChunks: number): number => run.seqLen / run.sequenceParallelSize / numChunks;
    const likely = this.counts.findIndex((count) => tokens(count) <= LIKELY_LOCAL_TOKENS);
    let first = likely < 0 ? this.counts.length - 1 : likely;
    for (const frame of frames(this.setting)) {
      if (this.isGoodEnough()) break;
      first = (yield* this.sweep(frame, first)) ?? first;
    }
    while (this.best !== undefined && !this.isGoodEnough()) {
      const before = this.best;
      for (const { frame, numChunks } of neighbours(this.setting, this.counts, before)) {
        yield;
        const movesOnly = numChunks === before.strategy.numChunks && frame.kvTileChunks === before.frame.kvTileChunks;
        if (!movesOnly || this.leavesRoom(frame)) this.tryChunks(frame, numChunks);
      }
      if (this.best.seconds > before.seconds / WORTH_MORE) break;
    }
    return this.best;
  }

  /** The fewest chunks that fit, and more of them where that leaves room to keep more; the position of the fewest. */
  private *sweep(frame: Frame, guess: number): Steps<number | undefined> {
    yield;
    if (!this.leavesRoom(frame)) return undefined;
    const first = this.fewestChunks(frame, guess);
    if (first === undefined) return undefined;
    let least = Number.POSITIVE_INFINITY;
    for (const numChunks of this.counts.slice(first, first + 1 + MORE_COUNTS)) {
      yield;
      const cost = this.tryChunks(frame, numChunks, least);
      least = Math.min(least, cost ?? least);
      if (least === 0 || this.isGoodEnough()) break;
    }
    return first;
  }

  private isGoodEnough(): boolean {
    return this.best !== undefined && this.best.seconds <= GOOD_ENOUGH * this.boundSeconds;
  }

  /** Whether it may keep more than the best, in chunks of half the size; or the best loses time beside what it does not keep. */
  private leavesRoom(frame: Frame): boolean {
    if (this.best === undefined) return true;
    const { seconds, fillSeconds, strategy } = this.best;
    if (seconds - fillSeconds > GOOD_ENOUGH * this.boundSeconds) return true;
    const filled = this.filled(frame, 2 * strategy.numChunks);
    return filled !== undefined && filled.seconds < fillSeconds && !this.isSlower(filled);
  }

  /** Position of the fewest chunks whose tensors of a layer fit: more never need more, and the bytes grow about evenly with a chunk's tokens. */
  private fewestChunks(frame: Frame, guess: number): number | undefined {
    const looked: { readonly tokens: number; readonly excess: number }[] = [];
    let [misfit, fitting, at] = [-1, this.counts.length, guess];
    while (fitting - misfit > 1) {
      const strategy = this.uniform(frame, this.counts[at] ?? 1);
      const device = this.memory(strategy).pools.filter(({ kind }) => kind === 'device');
      const excess = Math.max(...device.map((pool) => pool.peakBytes - roomBytes(pool)));
      looked.push({ tokens: strategy.chunkTokens, excess });
      if (excess <= 0) fitting = at;
      else misfit = at;
      const likely = this.counts.findIndex((count) => this.setting.run.seqLen / count <= zeroOf(looked.slice(-2)));
      at = Math.max(misfit + 1, Math.min(fitting - 1, likely < 0 ? this.counts.length : likely));
    }
    return fitting === this.counts.length ? undefined : fitting;
  }

  /** Seconds that its filling costs; undefined where it has none, or none that costs less than `atMost` and may better the best. */
  private tryChunks(frame: Frame, numChunks: number, atMost = Number.POSITIVE_INFINITY): number | undefined {
    const key = JSON.stringify([frame, numChunks]);
    if (this.tried.has(key)) return undefined;
    this.tried.add(key);
    if (!this.hasCosts && this.filled(frame, numChunks)?.seconds !== 0) {
      this.hasCosts = true;
      const strategyOf = (segments: readonly FilledSegment[]): Strategy => assemble(this.setting, frame, numChunks, segments);
      const costs = layerCosts(this.setting, this.evaluate, strategyOf, this.allPinned, this.internalSeconds);
      this.options = optionsOf(costs, this.mostInternals, this.setting.run.segmentLayers);
    }
    return this.tryFilling(frame, numChunks, atMost);
  }

  private filled(frame: Frame, numChunks: number): Filling | undefined {
    const lean = this.uniform(frame, numChunks);
    const bytes = keptBytes(this.setting, lean);
    return this.fill(bytes, this.roomsBeside(lean, bytes));
  }

  /** Whether it costs too much to be faster than the best, computing alone counted. */
  private isSlower({ seconds }: Filling): boolean {
    return this.best !== undefined && WORTH_A_LOOK * (this.boundSeconds + seconds) >= this.best.seconds;
  }

  private tryFilling(frame: Frame, numChunks: number, atMost: number): number | undefined {
    const lean = this.uniform(frame, numChunks);
    const bytes = keptBytes(this.setting, lean);
    let left = this.roomsBeside(lean, bytes);
    for (let refill = 0; refill <= MAX_REFILLS; refill++) {
      const filled = this.fill(bytes, left);
      if (filled === undefined || filled.seconds >= atMost || this.isSlower(filled)) return undefined;
      const strategy = assemble(this.setting, frame, numChunks, filled.segments);
      const memory = this.memory(strategy);
      if (memory.fits) {
        this.offer({ ...this.withLargestLossTiles(strategy, memory), frame, fillSeconds: filled.seconds });
        return filled.seconds;
      }
      const excess = new Map(memory.pools.map((pool) => [pool.pool, excessBytes(pool)]));
      left = left.map((room) => ({ ...room, bytes: room.bytes - (excess.get(room.pool) ?? 0) }));
    }
    return undefined;
  }

  /** The loss has an instant of its own: what is free then makes its tiles larger, which is faster in every strategy. */
  private withLargestLossTiles(strategy: Strategy, memory: MemoryLedger): Pick<Found, 'strategy' | 'memory'> {
    let found = { strategy, memory };
    let [misfit, fitting] = [-1, Math.ceil(Math.log2(strategy.numLossTiles))];
    if (this.setting.run.numLossTiles !== undefined) return found;
    while (fitting - misfit > 1) {
      const middle = Math.floor((misfit + fitting) / 2);
      const larger = { ...strategy, numLossTiles: 2 ** middle };
      const needs = this.memory(larger);
      if (needs.fits) [fitting, found] = [middle, { strategy: larger, memory: needs }];
      else misfit = middle;
    }
    return found;
  }

  private offer(found: Omit<Candidate, 'seconds'>): void {
    const seconds = this.seconds(found.strategy);
    if (this.best === undefined || seconds < this.best.seconds) this.best = { ...found, seconds };
  }

  private fill(bytes: KeptBytes, rooms: readonly Room[]): Filling | undefined {
    const { model, run } = this.setting;
    // Until costs are known: whether everything can be kept does not hang on them.
    const anyCosts = { recompute: Array.from({ length: model.numLayers }, () => 1), rebuild: 1, rerun: 1, file: 1, internals: 1 };
    this.options ??= optionsOf(anyCosts, this.mostInternals, run.segmentLayers);
    return fill(this.options, bytes, rooms);
  }

  private numInternals(strategy: Strategy): number {
    const { model, run } = this.setting;
    const { internals } = keptBytes(this.setting, strategy);
    const device = this.memory(strategy).pools.find(({ kind }) => kind === 'device');
    if (device === undefined || internals === 0 || (run.segmentLayers ?? 1) > 1) return 0;
    const free = roomBytes(device) - device.persistent.reduce((sum, { bytes }) => sum + bytes, 0);
    return Math.min(model.numLayers, Math.max(0, Math.floor(free / internals)));
  }

  /** What pools have left beside what of them is not kept for the whole step: the device's first, files last. */
  private roomsBeside(allPinned: Strategy, { checkpoint, output }: KeptBytes): readonly Room[] {
    const { model, places } = this.setting;
    // On the device what the head reads has an instance too.
    const numStates = model.numLayers + (this.allPinned.checkpoints === places.device ? 1 : 0);
    const kept = numStates * checkpoint + model.numLayers * output;
    const kinds = ['device', 'pinned', 'file'];
    return this.memory(allPinned)
      .pools.toSorted((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind))
      .map((pool) => ({
        pool: pool.pool,
        isFile: pool.kind === 'file',
        isDevice: pool.kind === 'device',
        bytes: roomBytes(pool) - pool.peakBytes + (pool.pool === this.allPinned.checkpoints ? kept : 0),
      }));
  }

  /** Strategies that differ in numbers alone have the same ranges of layers, of which much is found once. */
  private uniform(frame: Frame, numChunks: number, change: Partial<FilledSegment> = {}): Strategy {
    const key = JSON.stringify([frame, change]);
    const strategy = assembleUniform(this.setting, frame, numChunks, { ...this.allPinned, ...change });
    const layers = this.ranges.get(key) ?? strategy.layers;
    this.ranges.set(key, layers);
    return { ...strategy, layers };
  }

  private memory(strategy: Strategy): MemoryLedger {
    return this.evaluate.memory(this.setting, strategy);
  }

  private seconds(strategy: Strategy): number {
    return this.evaluate.seconds(this.setting, strategy);
  }
}

/** Where the line through two points, tokens of a chunk and excess bytes, is zero; of one point, far beyond it on the side of zero. */
function zeroOf(looked: readonly { readonly tokens: number; readonly excess: number }[]): number {
  const [first, second] = looked;
  if (first === undefined || second === undefined) return first === undefined || first.excess > 0 ? 0 : Number.POSITIVE_INFINITY;
  const perToken = (second.excess - first.excess) / (second.tokens - first.tokens);
  return perToken > 0 ? second.tokens - second.excess / perToken : 0;
}

/** Between two numbers of which one is the double of the other, the one in their middle. */
function withHalves(counts: readonly number[]): readonly number[] {
  return counts.flatMap((count, i) => (counts[i + 1] === 2 * count && count > 1 ? [count, 1.5 * count] : [count]));
}
