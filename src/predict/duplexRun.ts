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
/** Seconds left, of an op that ends now. */
const ENDED = -1;

class DuplexRun {
  private readonly section: SectionArrays;
  private readonly seconds: Float64Array;
  private readonly entry: CallEntry;
  private readonly times: OpTimes;
  private readonly duplex: Duplex;
  private readonly queues: readonly Int32Array[];
  private readonly result: {
    free: Float64Array;
    busySeconds: Float64Array;
    firstStart: Float64Array;
    latestHost: number;
    lastEnd: number;
  };
  /** By stream: place in its queue, op that runs, and seconds of it left at full rate. */
  private readonly next: Int32Array;
  private readonly running: Int32Array;
  private readonly left: Float64Array;
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
    this.queues = queuesOf(section, numStreams);
    this.result = {
      free: entry.free.slice(),
      busySeconds: new Float64Array(numStreams),
      firstStart: new Float64Array(numStreams).fill(Number.POSITIVE_INFINITY),
      latestHost: Number.POSITIVE_INFINITY,
      lastEnd: Number.NEGATIVE_INFINITY,
    };
    this.next = new Int32Array(numStreams);
    this.running = new Int32Array(numStreams).fill(IDLE);
    this.left = new Float64Array(numStreams);
    // Nothing starts before the first stream is free.
    this.now = section.used.reduce((first, stream) => Math.min(first, entry.free[stream] ?? 0), Number.POSITIVE_INFINITY);
    times.endSeconds.fill(Number.NaN, 0, section.numOps);
  }

  run(): CallRun {
    for (;;) {
      this.step = Number.POSITIVE_INFINITY;
      for (const stream of this.section.used) this.startNext(stream);
      this.findNextChange();
      if (this.step === Number.POSITIVE_INFINITY) return this.result;
      this.advance();
    }
  }

  /** Starts the next op of an idle stream if it is time. */
  private startNext(stream: number): void {
    if (this.running[stream] !== IDLE) return;
    const id = this.queues[stream]?.[this.next[stream] ?? 0];
    if (id === undefined) return;
    const ready = this.readyAt(id, stream);
    if (Number.isNaN(ready)) return;
    if (ready > this.now) {
      this.meet(ready - this.now, ready);
      return;
    }
    this.next[stream] = (this.next[stream] ?? 0) + 1;
    this.running[stream] = id;
    this.left[stream] = this.seconds[id] ?? 0;
    this.times.startSeconds[id] = ready;
    if (ready < (this.result.firstStart[stream] ?? 0)) this.result.firstStart[stream] = ready;
    this.result.latestHost = Math.min(this.result.latestHost, ready - (this.section.issueSeconds[id] ?? 0));
  }

  /** NaN while something that it waits for has not ended. */
  private readyAt(id: number, stream: number): number {
    const { waitOffsets, waits, issueSeconds } = this.section;
    let ready = Math.max(this.result.free[stream] ?? 0, this.entry.host + (issueSeconds[id] ?? 0));
    for (let w = waitOffsets[id] ?? 0; w < (waitOffsets[id + 1] ?? 0); w++) {
      ready = Math.max(ready, this.times.endSeconds[waits[w] ?? 0] ?? 0);
    }
    return ready;
  }

  /** Something changes `step` seconds from now. Steps and not times are compared, so that rounding never leaves a rest for ever. */
  private meet(step: number, time: number): void {
    if (step >= this.step) return;
    this.step = step;
    this.change = time;
  }

  private findNextChange(): void {
    for (const stream of this.section.used) {
      if (this.running[stream] === IDLE) continue;
      const step = (this.left[stream] ?? 0) * this.slowdown(stream);
      this.meet(step, this.now + step);
    }
    // A copy of an earlier call that ends changes how fast one of this call is.
    for (const stream of this.duplex.streams) {
      const until = this.entry.busyUntil[stream] ?? 0;
      if (until > this.now) this.meet(until - this.now, until);
    }
  }

  private advance(): void {
    for (const stream of this.section.used) {
      if (this.running[stream] === IDLE) continue;
      const slowdown = this.slowdown(stream);
      const whole = (this.left[stream] ?? 0) * slowdown;
      this.left[stream] = whole <= this.step ? ENDED : (whole - this.step) / slowdown;
    }
    this.now = this.change;
    for (const stream of this.section.used) {
      if (this.left[stream] === ENDED) this.finish(this.running[stream] ?? IDLE, stream);
    }
  }

  private finish(id: number, stream: number): void {
    const { result, times } = this;
    this.running[stream] = IDLE;
    this.left[stream] = 0;
    times.endSeconds[id] = this.now;
    result.free[stream] = this.now;
    result.busySeconds[stream] = (result.busySeconds[stream] ?? 0) + this.now - (times.startSeconds[id] ?? 0);
    result.lastEnd = Math.max(result.lastEnd, this.now);
  }

  /** Of a copy: the factor, while the other direction is busy with an op of this call or of an earlier one. */
  private slowdown(stream: number): number {
    const [one, other] = this.duplex.streams;
    if (stream !== one && stream !== other) return 1;
    const opposite = stream === one ? other : one;
    const isBusy = this.running[opposite] !== IDLE || (this.entry.busyUntil[opposite] ?? 0) > this.now;
    return isBusy ? this.duplex.slowdown : 1;
  }
}

function queuesOf({ streams }: SectionArrays, numStreams: number): readonly Int32Array[] {
  const ids: number[][] = Array.from({ length: numStreams }, () => []);
  for (let i = 0; i < streams.length; i++) ids[streams[i] ?? 0]?.push(i);
  return ids.map((queue) => Int32Array.from(queue));
}
