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
import { assemble, assembleUniform, keptBytes, pinnedPool } from './assemble.js';
import { type FilledSegment, fill, type KeptBytes, type LayerCosts, type Room } from './fill.js';
import { fetches, type Frame, frames } from './frames.js';

export interface Found {
  readonly strategy: Strategy;
  readonly memory: MemoryLedger;
  readonly seconds: number;
}

/** Beyond the fewest that fit, this many larger numbers of chunks are tried: each leaves more room, and costs more launches. */
const MORE_COUNTS = 2;
/** Chunks of fetched keys and values that are attended to together: more of them are fewer merges in more memory. */
const MOST_TILE_CHUNKS = 8;
/** Of a chunk; where the search for the fewest chunks that fit begins. */
const LIKELY_LOCAL_TOKENS = 32768;
/** Fillings that turn out too large are tried again with that much less room. */
const MAX_REFILLS = 6;
/** A strategy this close to what computing alone takes where every output is kept is not bettered. */
const GOOD_ENOUGH = 1.005;
/** Larger tiles are tried as long as they are faster by this. */
const WORTH_A_TILE = 1.002;

/** Until costs are needed: whether everything can be kept does not hang on them. */
const ANY_COSTS: LayerCosts = { recompute: 1, rebuild: 1, rerun: 1, file: 1 };

/** Undefined where no strategy fits. */
export function searchAll(setting: Setting, evaluate: Evaluator): Found | undefined {
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
  /** Of computing alone where every output is kept. */
  private boundSeconds = Number.POSITIVE_INFINITY;
  private costs: LayerCosts | undefined;
  /** By chunks and tile, the least that a filling cost in the frames that were tried. */
  private readonly leastCost = new Map<string, number>();

  constructor(setting: Setting, evaluate: Evaluator) {
    const pinned = pinnedPool(setting);
    this.setting = setting;
    this.evaluate = evaluate;
    this.counts = chunkCounts(setting.run);
    this.allPinned = { length: 1, checkpoints: pinned, attentionOutput: pinned };
  }

  run(): Found | undefined {
    const { run } = this.setting;
    const tokens = (numChunks: number): number => run.seqLen / run.sequenceParallelSize / numChunks;
    let first = Math.max(
      0,
      this.counts.findIndex((count) => tokens(count) <= LIKELY_LOCAL_TOKENS),
    );
    for (const frame of frames(this.setting)) {
      if (!this.mayBeFaster(frame)) continue;
      const found = this.fewestChunks(frame, first);
      if (found === undefined) continue;
      first = found;
      for (const numChunks of this.counts.slice(first, first + 1 + MORE_COUNTS)) {
        this.tryChunks(frame, numChunks);
        if (this.isGoodEnough()) return this.best;
      }
    }
    if (run.kvTileChunks === undefined) this.tryTiles();
    return this.best;
  }

  private isGoodEnough(): boolean {
    return this.best !== undefined && this.best.seconds <= GOOD_ENOUGH * this.boundSeconds;
  }

  /** Whether it leaves room to keep more than the best does with as many chunks; or the best loses time beside what it does not keep. */
  private mayBeFaster(frame: Frame): boolean {
    if (this.best === undefined) return true;
    const { seconds, fillSeconds, strategy } = this.best;
    if (seconds - fillSeconds > GOOD_ENOUGH * this.boundSeconds) return true;
    const lean = this.uniform(frame, strategy.numChunks);
    const bytes = keptBytes(this.setting, lean);
    const filled = this.fill(bytes, this.roomsBeside(lean, bytes));
    return filled !== undefined && filled.seconds < fillSeconds;
  }

  /** Position of the fewest chunks whose tensors of a layer fit, found from a guess: more chunks never need more. */
  private fewestChunks(frame: Frame, guess: number): number | undefined {
    const fits = (at: number): boolean => {
      const { pools } = this.memory(this.uniform(frame, this.counts[at] ?? 1));
      return pools.every((pool) => pool.kind !== 'device' || excessBytes(pool) === 0);
    };
    let at = Math.min(guess, this.counts.length - 1);
    while (at < this.counts.length && !fits(at)) at += 1;
    if (at === this.counts.length) return undefined;
    while (at > 0 && fits(at - 1)) at -= 1;
    return at;
  }

  private tryChunks(frame: Frame, numChunks: number): void {
    const lean = this.uniform(frame, numChunks);
    const bytes = keptBytes(this.setting, lean);
    const rooms = this.roomsBeside(lean, bytes);
    if (this.best === undefined) this.boundSeconds = this.evaluate.computeSeconds(this.setting, lean);
    if (this.fill(bytes, rooms)?.seconds !== 0) this.costs ??= this.costsOf(frame, numChunks);
    const filled = this.fill(bytes, rooms);
    const key = `${numChunks} ${frame.kvTileChunks}`;
    if (filled === undefined || filled.seconds >= (this.leastCost.get(key) ?? Number.POSITIVE_INFINITY)) return;
    if (this.best !== undefined && this.boundSeconds + filled.seconds >= this.best.seconds) return;
    this.leastCost.set(key, filled.seconds);
    this.tryFilling(frame, numChunks, rooms, bytes);
  }

  /** Larger tiles for the best frame, as long as they are faster by more than a little. */
  private tryTiles(): void {
    if (this.best === undefined || !fetches(this.best.frame, this.setting)) return;
    const { frame, strategy } = this.best;
    for (let kvTileChunks = 2; kvTileChunks <= Math.min(MOST_TILE_CHUNKS, strategy.numChunks / 2); kvTileChunks *= 2) {
      const { seconds } = this.best;
      this.tryChunks({ ...frame, kvTileChunks }, strategy.numChunks);
      if (this.best.seconds > seconds / WORTH_A_TILE) return;
    }
  }

  private tryFilling(frame: Frame, numChunks: number, rooms: readonly Room[], bytes: KeptBytes): void {
    let left = rooms;
    for (let refill = 0; refill <= MAX_REFILLS; refill++) {
      const filled = this.fill(bytes, left);
      if (filled === undefined) return;
      const strategy = assemble(this.setting, frame, numChunks, filled.segments);
      const memory = this.memory(strategy);
      if (memory.fits) {
        this.offer({ strategy, memory, frame, fillSeconds: filled.seconds, seconds: this.seconds(strategy) });
        return;
      }
      const excess = new Map(memory.pools.map((pool) => [pool.pool, excessBytes(pool)]));
      left = left.map((room) => ({ ...room, bytes: room.bytes - (excess.get(room.pool) ?? 0) }));
    }
  }

  private offer(found: Candidate): void {
    if (this.best === undefined || found.seconds < this.best.seconds) this.best = found;
  }

  private fill(bytes: KeptBytes, rooms: readonly Room[]): ReturnType<typeof fill> {
    const { model, run } = this.setting;
    return fill(model.numLayers, bytes, this.costs ?? ANY_COSTS, rooms, run.segmentLayers);
  }

  /** What pools have left beside what of them is not kept for the whole step: the device's first, files last. */
  private roomsBeside(allPinned: Strategy, { checkpoint, output }: KeptBytes): readonly Room[] {
    const { numLayers } = this.setting.model;
    const kept = (numLayers + 1) * checkpoint + numLayers * output;
    const kinds = ['device', 'pinned', 'file'];
    return this.memory(allPinned)
      .pools.toSorted((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind))
      .map((pool) => ({
        pool: pool.pool,
        isFile: pool.kind === 'file',
        bytes: roomBytes(pool) - pool.peakBytes + (pool.pool === this.allPinned.checkpoints ? kept : 0),
      }));
  }

  /** From whole steps of which one thing is different in all layers. */
  private costsOf(frame: Frame, numChunks: number): LayerCosts {
    const { model, pools } = this.setting;
    const { numLayers } = model;
    const length = Math.min(2, numLayers);
    const file = pools.find(({ kind }) => kind === 'file')?.name;
    const of = (one: Partial<FilledSegment>): number => this.seconds(this.uniform(frame, numChunks, one));
    const kept = of({});
    const recomputed = of({ attentionOutput: RECOMPUTE });
    const numRebuilt = Math.max(1, numLayers - Math.ceil(numLayers / length));
    return {
      recompute: Math.max(0, recomputed - kept) / numLayers,
      rebuild: Math.max(0, of({ length }) - kept) / numRebuilt,
      rerun: Math.max(0, of({ length, attentionOutput: RECOMPUTE }) - recomputed) / numRebuilt,
      file: file === undefined ? 0 : Math.max(0, of({ attentionOutput: file }) - kept) / numLayers,
    };
  }

  private uniform(frame: Frame, numChunks: number, change: Partial<FilledSegment> = {}): Strategy {
    return assembleUniform(this.setting, frame, numChunks, { ...this.allPinned, ...change });
  }

  private memory(strategy: Strategy): MemoryLedger {
    return this.evaluate.memory(this.setting, strategy);
  }

  private seconds(strategy: Strategy): number {
    return this.evaluate.seconds(this.setting, strategy);
  }
}
