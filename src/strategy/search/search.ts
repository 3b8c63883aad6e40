/**
 * The fastest strategy that fits, of one number of groups of heads. Frames are tried from the one that copies least, each with the fewest
 * chunks that fit and with more; what is kept for the whole step fills the room that is left. Every strategy that counts has its exact
 * memory and its estimated seconds. A frame that copies more than another can only be faster where it leaves room to keep more, and nothing
 * is faster than computing alone.
 */
import { excessBytes, type MemoryLedger, roomBytes } from '../../memory/ledger.js';
import type { Strategy } from '../../spec/strategy.js';
import type { Evaluator } from '../evaluator.js';
import { hasTooManyOps } from '../planSize.js';
import type { Setting } from '../setting.js';
import type { Steps } from '../steps.js';
import { assemble, assembleUniform, keptBytes } from './assemble.js';
import { layerCosts } from './costs.js';
import { countsToTry } from './counts.js';
import { type FilledSegment, type Filling, fill, type KeptBytes, type LayerCosts, type Options, optionsOf, type Room } from './fill.js';
import { type Frame, frames, neighbours } from './frames.js';
import { allPinned, type Keeping, keepingBeside } from './rooms.js';
import { zeroOf } from './secant.js';

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
export const WORTH_A_LOOK = 1.002;

/** What is to be bettered by another number of groups of heads. */
export interface Others {
  readonly seconds: number;
  /** Of all heads at once, than which none has less; undefined where everything was kept. */
  readonly costs: LayerCosts | undefined;
}

interface Candidate extends Found {
  readonly frame: Frame;
  /** What its filling costs beside keeping everything. */
  readonly fillSeconds: number;
}

export class Search {
  private readonly setting: Setting;
  private readonly evaluate: Evaluator;
  /** Of what was found with all heads at once, which is to be bettered. */
  private readonly others: Others | undefined;
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

  constructor(setting: Setting, evaluate: Evaluator, others?: Others) {
    this.setting = setting;
    this.evaluate = evaluate;
    this.others = others;
    this.counts = countsToTry(setting.run);
    this.allPinned = allPinned(setting);
    const [[fewest = 1], [roomiest]] = [this.counts, frames(setting)];
    const computing = (change: Partial<FilledSegment>): number =>
      roomiest === undefined ? 0 : evaluate.computeSeconds(setting, this.uniform(roomiest, fewest, change));
    const all = computing({});
    const most = roomiest === undefined ? 0 : this.numInternals(this.uniform(roomiest, fewest));
    this.internalSeconds = most === 0 ? 0 : (all - computing({ internals: setting.places.device })) / setting.model.numLayers;
    this.mostInternals = all > WORTH_A_LOOK * (all - most * this.internalSeconds) ? most : 0;
    this.boundSeconds = all - this.mostInternals * this.internalSeconds;
    if (others?.costs !== undefined) this.options = optionsOf(others.costs, this.mostInternals, setting.run.segmentLayers);
  }

  /** Undefined where none were needed: all is kept. */
  costs(): LayerCosts | undefined {
    return this.hasCosts ? this.options?.costs : undefined;
  }

  /** Whether a strategy may fit and be faster than what was found that leaves so much room to keep so much. */
  mayBeFaster({ bytes, rooms }: Keeping): boolean {
    const hasRoom = rooms.every((room) => room.bytes >= 0);
    const seconds = hasRoom ? this.leastFillSeconds(this.fill(bytes, rooms)) : Number.POSITIVE_INFINITY;
    return seconds < Number.POSITIVE_INFINITY && !this.isSlower(seconds);
  }

  /** Whether everything is kept beside all tensors of a layer on the device, in as few chunks as there can be: more room is of no use. */
  hasRoom(): boolean {
    const [[frame], [fewest = 1]] = [frames(this.setting), this.counts];
    if (frame === undefined) return false;
    const { bytes, rooms } = keepingBeside(this.setting, this.evaluate, this.uniform(frame, fewest));
    return rooms.every((room) => room.bytes >= 0) && this.fill(bytes, rooms)?.seconds === 0;
  }

  /** Undefined where no strategy fits. A step for each frame and number of chunks. */
  *run(): Steps<Found | undefined> {
    const { seqLen, sequenceParallelSize } = this.setting.run;
    const likely = this.counts.findIndex((count) => seqLen / sequenceParallelSize / count <= LIKELY_LOCAL_TOKENS);
    let first = likely < 0 ? this.counts.length - 1 : likely;
    for (const [number, frame] of frames(this.setting).entries()) {
      if (this.isGoodEnough()) break;
      first = (yield* this.sweep(frame, first, number > 0)) ?? first;
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
  private *sweep(frame: Frame, guess: number, isAnother: boolean): Steps<number | undefined> {
    yield;
    if (!this.leavesRoom(frame)) return undefined;
    // Where nothing has fitted yet, one look mostly tells of another frame.
    if (isAnother && this.best === undefined && this.filled(frame, this.counts.at(-1) ?? 1) === undefined) return undefined;
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

  /** Whether what it found is as fast as what computing alone takes. */
  isGoodEnough(): boolean {
    return this.best !== undefined && this.best.seconds <= GOOD_ENOUGH * this.boundSeconds;
  }

  /**
   * Whether it may keep so much more than the best, in chunks of half the size, that it is worth a look; or the best loses time beside what
   * it does not keep.
   */
  private leavesRoom(frame: Frame): boolean {
    if (this.others !== undefined && this.isSlower(this.leastFillSeconds(this.filled(frame, this.counts.at(-1) ?? 1)))) return false;
    if (this.best === undefined) return true;
    const { seconds, fillSeconds, strategy } = this.best;
    if (seconds - fillSeconds > GOOD_ENOUGH * this.boundSeconds) return true;
    const filled = this.leastFillSeconds(this.filled(frame, 2 * strategy.numChunks));
    return WORTH_A_LOOK * (seconds - fillSeconds + filled) < seconds && !this.isSlower(filled);
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

  /** Seconds that its filling costs; undefined where it has none, or none that may better the best or costs less than `atMost`: not tried then. */
  private tryChunks(frame: Frame, numChunks: number, atMost = Number.POSITIVE_INFINITY): number | undefined {
    const key = JSON.stringify([frame, numChunks]);
    if (this.tried.has(key)) return undefined;
    if (!this.hasCosts && this.filled(frame, numChunks)?.seconds !== 0) {
      this.hasCosts = true;
      const strategyOf = (segments: readonly FilledSegment[]): Strategy => assemble(this.setting, frame, numChunks, segments);
      const costs = layerCosts(this.setting, this.evaluate, strategyOf, this.allPinned, this.internalSeconds);
      this.options = optionsOf(costs, this.mostInternals, this.setting.run.segmentLayers);
    }
    // Beside the best, chunks of another size may still overlap more.
    if (this.leastFillSeconds(this.filled(frame, numChunks)) >= atMost) return undefined;
    this.tried.add(key);
    return this.tryFilling(frame, numChunks, atMost);
  }

  private filled(frame: Frame, numChunks: number): Filling | undefined {
    const { bytes, rooms } = keepingBeside(this.setting, this.evaluate, this.uniform(frame, numChunks));
    return this.fill(bytes, rooms);
  }

  /** As long as no costs are known it may cost nothing. */
  private leastFillSeconds(filled: Filling | undefined): number {
    if (filled === undefined) return Number.POSITIVE_INFINITY;
    return this.hasCosts || this.others?.costs !== undefined ? filled.seconds : 0;
  }

  /** Whether it costs too much to be faster than the best, computing alone counted. */
  private isSlower(fillSeconds: number): boolean {
    return this.isNoFaster(this.boundSeconds + fillSeconds);
  }

  /** Than what was found; `seconds` is the least that it may take. */
  private isNoFaster(seconds: number): boolean {
    const { others, best } = this;
    return (
      (others !== undefined && GOOD_ENOUGH * seconds >= others.seconds) || (best !== undefined && WORTH_A_LOOK * seconds >= best.seconds)
    );
  }

  /** Known sooner than what it takes in all. */
  private computesTooLong(strategy: Strategy): boolean {
    const isFirst = (this.others ?? this.best) === undefined;
    return !isFirst && this.isNoFaster(this.evaluate.computeSeconds(this.setting, strategy));
  }

  private tryFilling(frame: Frame, numChunks: number, atMost: number): number | undefined {
    const { bytes, rooms } = keepingBeside(this.setting, this.evaluate, this.uniform(frame, numChunks));
    let left = rooms;
    for (let refill = 0; refill <= MAX_REFILLS; refill++) {
      const filled = this.fill(bytes, left);
      if (filled === undefined || filled.seconds >= atMost || this.isSlower(filled.seconds)) return undefined;
      const strategy = assemble(this.setting, frame, numChunks, filled.segments);
      // Each group of heads has ops of its own.
      if (strategy.headGroups !== undefined && hasTooManyOps(this.setting, strategy)) return undefined;
      const memory = this.memory(strategy);
      if (memory.fits) {
        const more = { frame, fillSeconds: filled.seconds };
        if (!this.computesTooLong(strategy)) this.offer({ ...this.withLargestLossTiles(strategy, memory), ...more });
        return filled.seconds;
      }
      const excess = new Map(memory.pools.map((pool) => [pool.pool, excessBytes(pool)]));
      left = left.map((room) => ({ ...room, bytes: room.bytes - (excess.get(room.pool) ?? 0) }));
    }
    return undefined;
  }

  /** The loss has an instant of its own: what is free then makes its tiles larger, which is faster in every strategy. Often one tile fits. */
  private withLargestLossTiles(strategy: Strategy, memory: MemoryLedger): Pick<Found, 'strategy' | 'memory'> {
    let found = { strategy, memory };
    if (this.setting.run.numLossTiles !== undefined) return found;
    let [misfit, fitting] = [-1, Math.ceil(Math.log2(strategy.numLossTiles))];
    for (let at = 0; fitting - misfit > 1; at = Math.floor((misfit + fitting) / 2)) {
      const larger = { ...strategy, numLossTiles: 2 ** at };
      const needs = this.memory(larger);
      if (needs.fits) [fitting, found] = [at, { strategy: larger, memory: needs }];
      else misfit = at;
    }
    return found;
  }

  /** Seconds of what is no faster than others that were found need not be exact. */
  private offer(found: Omit<Candidate, 'seconds'>): void {
    const enough = Math.min(this.best?.seconds ?? Number.POSITIVE_INFINITY, this.others?.seconds ?? Number.POSITIVE_INFINITY);
    const seconds = this.evaluate.seconds(this.setting, found.strategy, enough);
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
}
