/**
 * What each stream's queue knows to be complete of the others', as the micro-step goes on: entry masks, waits inside calls, and what
 * either implies. Ops are counted over all calls, so that one number a pair of streams says how far one knows the other.
 */
import type { CallSummary } from './runs.js';

export class Knowledge {
  /** Row-major: stream s knows the ops of stream t up to known[s * n + t]; -1 for none. */
  private known: Float64Array;
  private entry: Float64Array;
  /** By stream and phase of the call at hand. */
  private phases: Float64Array[][] = [];
  private readonly numStreams: number;

  constructor(numStreams: number) {
    this.numStreams = numStreams;
    this.known = new Float64Array(numStreams * numStreams).fill(-1);
    this.entry = this.known;
  }

  /** All streams wait for all that went before op number `first`. */
  joinAll(first: number): void {
    this.known.fill(first - 1);
  }

  /** Whatever comes now comes after all that `stream` was given before op number `first`, and so after what it knew. */
  joinStream(stream: number, first: number): void {
    const n = this.numStreams;
    const row = this.known.slice(stream * n, (stream + 1) * n);
    row[stream] = first - 1;
    for (let s = 0; s < n; s++) for (let t = 0; t < n; t++) raise(this.known, s * n + t, row[t] as number);
  }

  /**
   * Begins a call whose first op has number `first`. A stream without ops in the call learns nothing: whether it waits already is
   * the worker's affair.
   */
  enter(waits: readonly number[], first: number, { tails, phases }: CallSummary): void {
    const n = this.numStreams;
    this.entry = this.known.slice();
    for (let s = 0; s < n; s++) {
      if (tails[s] === undefined) continue;
      for (let t = 0; t < n; t++) {
        if (((waits[s] ?? 0) & (1 << t)) === 0) continue;
        // What t knew before this call: its own entry waits come beside those of s, in no order.
        for (let u = 0; u < n; u++) raise(this.entry, s * n + u, this.known[t * n + u] as number);
        raise(this.entry, s * n + t, first - 1);
      }
    }
    this.phases = phases.map((masks) => masks.map((mask) => this.union(mask)));
  }

  /** What the ops of a stream know in a phase of the call, counted from 1: by stream, its number of the last op. */
  inPhase(stream: number, phase: number): Float64Array {
    return this.phases[stream]?.[phase - 1] as Float64Array;
  }

  leave(first: number, { tails }: CallSummary): void {
    const n = this.numStreams;
    const next = this.known.slice();
    for (const [s, tail] of tails.entries()) {
      if (tail === undefined) continue;
      next.set(this.union(tail.entries), s * n);
      for (const [t, op] of tail.ops.entries()) if (op >= 0) raise(next, s * n + t, first + op);
    }
    this.known = next;
  }

  /** All that the streams of a mask know on entry. */
  private union(mask: number): Float64Array {
    const n = this.numStreams;
    const all = new Float64Array(n).fill(-1);
    for (let u = 0; u < n; u++) {
      if ((mask & (1 << u)) === 0) continue;
      for (let t = 0; t < n; t++) raise(all, t, this.entry[u * n + t] as number);
    }
    return all;
  }
}

function raise(values: Float64Array, at: number, value: number): void {
  if (value > (values[at] as number)) values[at] = value;
}
