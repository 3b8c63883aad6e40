/**
 * The same as callRun.ts where copies of both directions share a link: each is slower by a factor while one of the other direction
 * runs too. Discrete events, since how long a copy takes depends on what else happens. Copies of earlier calls keep the times that
 * they were given; they slow those of this call while they last.
 */
import type { CallEntry, CallRun, OpTimes } from './callRun.js';
import type { SectionArrays } from './sectionArrays.js';

export interface Duplex {
  /** Numbers of the two streams. */
  readonly streams: readonly [number, number];
  /** At least 1. */
  readonly slowdown: number;
}

export function runDuplexCall(section: SectionArrays, seconds: Float64Array, entry: CallEntry, times: OpTimes, duplex: Duplex): CallRun {
  return new DuplexRun(section, seconds, entry, times, duplex).run();
}

/** No op, of a stream that has none running. */
const IDLE = -1;
/** After the last op of a stream. */
const NO_OP = -1;

class DuplexRun {
  private readonly section: SectionArrays;
  private readonly seconds: Float64Array;
  private readonly entry: CallEntry;
  private readonly times: OpTimes;
  private readonly duplex: Duplex;
  private readonly result: {
    free: Float64Array;
    busySeconds: Float64Array;
    firstStart: Float64Array;
    latestHost: number;
    lastEnd: number;
  };
  /** By stream: the op that runs, or IDLE; the next one, or NO_OP; and when that can start, NaN while that is not known. */
  private readonly running: Int32Array;
  private readonly next: Int32Array;
  private readonly ready: Float64Array;
  /** By stream, of the op that runs: seconds left at full rate and at the rate of now, and how much slower that is. */
  private readonly left: Float64Array;
  private readonly whole: Float64Array;
  private readonly slowdown: Float64Array;
  private now: number;
  /** Seconds to the next change, and its time. */
  private step = 0;
  private change = 0;

  constructor(section: SectionArrays, seconds: Float64Array, entry: CallEntry, times: OpTimes, duplex: Duplex) {
    const numStreams = entry.free.length;
    this.section = section;
    this.seconds = seconds;
    this.entry = entry;
    this.times = times;
    this.duplex = duplex;
    this.result = {
      free: entry.free.slice(),
      busySeconds: new Float64Array(numStreams),
      firstStart: new Float64Array(numStreams).fill(Number.POSITIVE_INFINITY),
      latestHost: Number.POSITIVE_INFINITY,
      lastEnd: Number.NEGATIVE_INFINITY,
    };
    this.running = new Int32Array(numStreams).fill(IDLE);
    this.next = Int32Array.from({ length: numStreams }, (_, stream) => section.streams.indexOf(stream));
    this.ready = new Float64Array(numStreams).fill(Number.NaN);
    this.left = new Float64Array(numStreams);
    this.whole = new Float64Array(numStreams);
    this.slowdown = new Float64Array(numStreams).fill(1);
    // Nothing starts before the first stream is free.
    this.now = section.used.reduce((first, stream) => Math.min(first, entry.free[stream] ?? 0), Number.POSITIVE_INFINITY);
    times.endSeconds.fill(Number.NaN, 0, section.numOps);
  }

  run(): CallRun {
    const { running } = this;
    const { used } = this.section;
    for (;;) {
      this.step = Number.POSITIVE_INFINITY;
      for (let n = 0; n < used.length; n++) if (running[used[n] as number] === IDLE) this.startNext(used[n] as number);
      this.findNextChange();
      if (this.step === Number.POSITIVE_INFINITY) return this.result;
      this.advance();
    }
  }

  /** Starts the next op of an idle stream if it is time. */
  private startNext(stream: number): void {
    const id = this.next[stream] as number;
    if (id === NO_OP) return;
    if (Number.isNaN(this.ready[stream])) this.ready[stream] = this.readyAt(id, stream);
    const ready = this.ready[stream] as number;
    if (Number.isNaN(ready)) return;
    if (ready > this.now) {
      this.meet(ready - this.now, ready);
      return;
    }
    const { result, section } = this;
    this.running[stream] = id;
    this.next[stream] = section.streams.indexOf(stream, id + 1);
    this.ready[stream] = Number.NaN;
    this.left[stream] = this.seconds[id] as number;
    this.times.startSeconds[id] = ready;
    if (ready < (result.firstStart[stream] as number)) result.firstStart[stream] = ready;
    result.latestHost = Math.min(result.latestHost, ready - (section.issueSeconds[id] as number));
  }

  /** NaN while something that it waits for has not ended. */
  private readyAt(id: number, stream: number): number {
    const { waitOffsets, waits, issueSeconds } = this.section;
    const { endSeconds } = this.times;
    const last = waitOffsets[id + 1] as number;
    let ready = Math.max(this.result.free[stream] as number, this.entry.host + (issueSeconds[id] as number));
    for (let w = waitOffsets[id] as number; w < last; w++) ready = Math.max(ready, endSeconds[waits[w] as number] as number);
    return ready;
  }

  /** Something changes `step` seconds from now. Steps and not times are compared, so that rounding never leaves a rest for ever. */
  private meet(step: number, time: number): void {
    if (step >= this.step) return;
    this.step = step;
    this.change = time;
  }

  private findNextChange(): void {
    const { running, left, whole, slowdown } = this;
    const { used } = this.section;
    const [one, other] = this.duplex.streams;
    slowdown[one] = this.slowdownBeside(other);
    slowdown[other] = this.slowdownBeside(one);
    for (let n = 0; n < used.length; n++) {
      const stream = used[n] as number;
      if (running[stream] === IDLE) continue;
      const step = (left[stream] as number) * (slowdown[stream] as number);
      whole[stream] = step;
      this.meet(step, this.now + step);
    }
    // A copy of an earlier call that ends changes how fast one of this call is.
    this.meetTail(one);
    this.meetTail(other);
  }

  /** Of a copy: the factor, while the other direction is busy with an op of this call or of an earlier one. */
  private slowdownBeside(opposite: number): number {
    const isBusy = this.running[opposite] !== IDLE || (this.entry.busyUntil[opposite] as number) > this.now;
    return isBusy ? this.duplex.slowdown : 1;
  }

  private meetTail(stream: number): void {
    const until = this.entry.busyUntil[stream] as number;
    if (until > this.now) this.meet(until - this.now, until);
  }

  private advance(): void {
    const { running, left, whole, slowdown, step } = this;
    const { used } = this.section;
    this.now = this.change;
    for (let n = 0; n < used.length; n++) {
      const stream = used[n] as number;
      if (running[stream] === IDLE) continue;
      const seconds = whole[stream] as number;
      if (seconds <= step) this.finish(running[stream] as number, stream);
      else left[stream] = (seconds - step) / (slowdown[stream] as number);
    }
  }

  private finish(id: number, stream: number): void {
    const { result, times } = this;
    this.running[stream] = IDLE;
    times.endSeconds[id] = this.now;
    result.free[stream] = this.now;
    result.busySeconds[stream] = (result.busySeconds[stream] as number) + this.now - (times.startSeconds[id] as number);
    result.lastEnd = Math.max(result.lastEnd, this.now);
  }
}
