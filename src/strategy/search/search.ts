/**
 * The fastest strategy that fits, of one number of groups of heads. Frames are tried from the one that copies least, each with the fewest
 * chunks that fit and with more; what is kept for the whole step fills the room that is left. Every strategy that counts has its exact
 * memory and its estimated seconds. A frame that copies more than another can only be faster where it leaves room to keep more, and nothing
 * is faster than computing alone.
 */
import { type MemoryLedger, roomBytes } from '../../memory/ledger.js';
import type { Strategy } from '../../spec/strategy.js';
import type { Evaluator } from '../evaluator.js';
import { hasTooManyOps } from '../planSize.js';
import type { Setting } from '../setting.js';
import type { Steps } from '../steps.js';
import { assemble, type Uniform, uniformStrategies } from './assemble.js';
import { type Bound, boundOf, WORTH_A_LOOK } from './bound.js';
import { layerCosts } from './costs.js';
import { countsToTry } from './counts.js';
import type { FilledSegment, Filling, LayerCosts } from './fill.js';
import { Fillings, isRecomputing, withLess } from './fillings.js';
import { type Frame, frames, neighbours } from './frames.js';
import { allPinned, type Keeping } from './rooms.js';
import { zeroOf } from './secant.js';

export interface Found {
  readonly strategy: Strategy;
  readonly memory: MemoryLedger;
  readonly seconds: number;
}

/** Beside the fewest that fit, this many larger numbers of chunks are tried in which more is kept. */
const MORE_COUNTS = 4;
/** So many chunks are more than any ring has slots of, as a rule. */
const LONG_RINGS = 8;
/** Of a chunk; where the search for the fewest chunks that fit begins. */
const LIKELY_LOCAL_TOKENS = 32768;
/** Fillings that turn out too large are tried again with less room. */
const MAX_REFILLS = 6;
/** A strategy this close to what computing alone takes where every output is kept is not bettered. */
const GOOD_ENOUGH = 1.005;
/** Neighbours are tried as long as they are faster by this. */
const WORTH_MORE = 1.001;

/** What is to be bettered by another number of groups of heads. */
export interface Others {
  readonly seconds: number;
  /** Of all heads at once, than which none has less; undefined where everything was kept. */
  readonly costs: LayerCosts | undefined;
}

interface Candidate extends Found {
  readonly frame: Frame;
  /** What its filling costs beside keeping everything, and with windows its chunks beside others. */
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
  private readonly bound: Bound;
  private readonly uniform: Uniform;
  private readonly fillings: Fillings;
  private ownCosts: LayerCosts | undefined;
  private readonly tried = new Set<string>();

  constructor(setting: Setting, evaluate: Evaluator, others?: Others) {
    this.setting = setting;
    this.evaluate = evaluate;
    this.others = others;
    this.counts = countsToTry(setting.run);
    this.allPinned = allPinned(setting);
    this.uniform = uniformStrategies(setting, this.allPinned);
    this.bound = boundOf(setting, evaluate, this.uniform, this.counts);
    this.fillings = new Fillings(setting, evaluate, this.uniform, this.bound.mostInternals);
    if (others?.costs !== undefined) this.fillings.know(others.costs);
  }

  /** Undefined where none were needed: all is kept. */
  costs(): LayerCosts | undefined {
    return this.ownCosts;
  }

  /** Whether a strategy may fit and be faster than what was found that leaves so much room to keep so much. */
  mayBeFaster(keeping: Keeping): boolean {
    const seconds = this.fillings.leastSeconds(this.fillings.fill(keeping));
    return seconds < Number.POSITIVE_INFINITY && !this.isSlower(seconds);
  }

  /** Whether everything is kept beside all tensors of a layer on the device, in as few chunks as there can be: more room is of no use. */
  hasRoom(): boolean {
    const [[frame], [fewest = 1]] = [frames(this.setting), this.counts];
    return frame !== undefined && this.fillings.atBest(this.fillings.beside(frame, fewest))?.seconds === 0;
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
    if (isAnother && this.best === undefined && !this.mayFill(frame, this.counts.at(-1) ?? 1, Number.isFinite)) return undefined;
    const first = this.fewestChunks(frame, guess);
    if (first === undefined) return undefined;
    let least = Number.POSITIVE_INFINITY;
    let numTried = 0;
    for (const numChunks of this.counts.slice(first)) {
      yield;
      const cost = this.tryChunks(frame, numChunks, least - this.worthSeconds());
      least = Math.min(least, cost ?? least);
      numTried += cost === undefined ? 0 : 1;
      if (numTried > MORE_COUNTS || least === 0 || this.isGoodEnough()) break;
      // More chunks leave more room, the most of them the most; but for a few, of which rings grow with their number.
      if (
        this.bound.moreSeconds === undefined &&
        numChunks >= LONG_RINGS &&
        !this.mayFill(frame, this.counts.at(-1) ?? 1, (seconds) => seconds < least - this.worthSeconds())
      )
        break;
    }
    return first;
  }

  /** Whether what it found is as fast as what computing alone takes. */
  isGoodEnough(): boolean {
    return this.best !== undefined && this.best.seconds <= GOOD_ENOUGH * this.bound.seconds;
  }

  /**
   * Whether it may keep so much more than the best, in chunks of half the size, that it is worth a look; or the best loses time beside what
   * it does not keep.
   */
  private leavesRoom(frame: Frame): boolean {
    if (this.others !== undefined && !this.mayFill(frame, this.counts.at(-1) ?? 1, (seconds) => !this.isSlower(seconds))) return false;
    if (this.best === undefined) return true;
    if (this.losesTime(this.best)) return true;
    const { seconds, fillSeconds, strategy } = this.best;
    const isWorth = (filled: number): boolean => WORTH_A_LOOK * (seconds - fillSeconds + filled) < seconds && !this.isSlower(filled);
    return this.mayFill(frame, 2 * strategy.numChunks, isWorth);
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
    if (this.ownCosts === undefined && this.fillings.atBest(this.fillings.beside(frame, numChunks))?.seconds !== 0) {
      const strategyOf = (segments: readonly FilledSegment[]): Strategy => assemble(this.setting, frame, numChunks, segments);
      this.ownCosts = layerCosts(this.setting, this.evaluate, strategyOf, this.allPinned, this.bound.internalSeconds);
      this.fillings.know(this.ownCosts);
    }
    // Beside the best, chunks of another size may still overlap more.
    if (!this.mayFill(frame, numChunks, (seconds) => seconds < atMost)) return undefined;
    this.tried.add(key);
    return this.tryFilling(frame, numChunks, atMost);
  }

  /** Whether a filling may be good: at best, which is known sooner, and then indeed. Where none fits, its seconds are infinite. */
  private mayFill(frame: Frame, numChunks: number, isGood: (seconds: number) => boolean): boolean {
    const left = this.fillings.beside(frame, numChunks);
    const isGoodFilling = (filled: Filling | undefined): boolean => isGood(this.fillings.leastSeconds(filled) + this.more(numChunks));
    const atBest = this.fillings.atBest(left);
    return isGoodFilling(atBest) && (!isRecomputing(atBest) || isGoodFilling(this.fillings.fill(left)));
  }

  private more(numChunks: number): number {
    return this.bound.moreSeconds?.get(numChunks) ?? 0;
  }

  /** What a filling must cost less to be worth a look: nothing where the best loses time beside it, which other chunks may not. */
  private worthSeconds(): number {
    return this.best === undefined || this.losesTime(this.best) ? 0 : (WORTH_A_LOOK - 1) * this.best.seconds;
  }

  /** Beside what it does not keep. */
  private losesTime({ seconds, fillSeconds }: Candidate): boolean {
    return seconds - fillSeconds > GOOD_ENOUGH * this.bound.seconds;
  }

  /** Whether it costs too much to be faster than the best, computing alone counted. */
  private isSlower(fillSeconds: number): boolean {
    return this.isNoFaster(this.bound.seconds + fillSeconds);
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
    let left = this.fillings.beside(frame, numChunks);
    for (let refill = 0; refill <= MAX_REFILLS; refill++) {
      const filled = this.fillings.fill(left);
      if (filled === undefined) return undefined;
      const fillSeconds = filled.seconds + this.more(numChunks);
      if (fillSeconds >= atMost || this.isSlower(fillSeconds)) return undefined;
      const strategy = assemble(this.setting, frame, numChunks, filled.segments);
      // Each group of heads has ops of its own.
      if (strategy.headGroups !== undefined && hasTooManyOps(this.setting, strategy)) return undefined;
      const memory = this.memory(strategy);
      if (memory.fits) {
        const more = { frame, fillSeconds };
        if (!this.computesTooLong(strategy)) this.offer({ ...this.withLargestLossTiles(strategy, memory), ...more });
        return fillSeconds;
      }
      left = withLess(left, filled, memory);
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

  private memory(strategy: Strategy): MemoryLedger {
    return this.evaluate.memory(this.setting, strategy);
  }
}
