/** Discrete-event simulation of a section on four in-order streams. */
import { FpdtError } from '../spec/errors.js';
import type { Buffer } from './buffer.js';
import { type MemoryCurves, type OpTimes, memoryCurves } from './memoryCurve.js';
import { type Op, type OpKind, STREAMS, type Section, type SectionName, type Stream } from './op.js';
import { opToText } from './text.js';

export interface KindSeconds {
  readonly count: number;
  readonly seconds: number;
}

export interface SectionPrediction {
  readonly name: SectionName;
  /** Times the section runs in one optimizer step. */
  readonly runs: number;
  readonly makespanSeconds: number;
  /** Busy seconds of each stream. */
  readonly busySeconds: Readonly<Record<'compute' | 'h2d' | 'd2h' | 'comm', number>>;
  /** Makespan minus the makespan with free copies. */
  readonly exposedCopySeconds: number;
}

/** What one optimizer step is predicted to cost; one rank's view. */
export interface Prediction {
  readonly kind: 'prediction';
  readonly stepSeconds: number;
  readonly tokensPerSecond: number;
  readonly exposedCopySeconds: number;
  readonly sections: readonly SectionPrediction[];
  /** Per optimizer step. */
  readonly byKind: Readonly<Partial<Record<OpKind, KindSeconds>>>;
  /** Per optimizer step, h2d and d2h. */
  readonly copiedBytes: { readonly h2d: number; readonly d2h: number };
  /** Four conventions: causal or full attention, model FLOPs or with recompute. */
  readonly mfu: {
    readonly causalModel: number;
    readonly causalHardware: number;
    readonly fullModel: number;
    readonly fullHardware: number;
  };
}

/** What the simulation must know of ops and device. */
export interface CostModel {
  /** Seconds of one op alone on its stream. */
  readonly seconds: (op: Op) => number;
  /** One thread executes all streams, as on the CPU device: nothing overlaps. */
  readonly serial: boolean;
  /** How much slower each copy gets while one of the other direction runs too; 1 for a full-duplex link. */
  readonly duplexSlowdown: number;
}

export interface SectionTimeline extends OpTimes {
  readonly makespanSeconds: number;
  readonly busySeconds: Readonly<Record<Stream, number>>;
  /** Makespan minus the makespan with free copies. */
  readonly exposedCopySeconds: number;
  /** Found when it is first asked for: a prediction needs only times. */
  readonly memory: MemoryCurves;
}

/** Runs a section once. Throws an FpdtError that names every op that could never start and what it waits for. */
export function simulateSection(section: Section, cost: CostModel, buffers: readonly Buffer[]): SectionTimeline {
  refuseStuck(section, buffers);
  const seconds = Float64Array.from(section.ops, cost.seconds);
  const times = runParts(section, seconds, cost);
  const freeCopies = seconds.map((value, id) => (isCopy(section.ops[id] as Op) ? 0 : value));
  const makespanSeconds = lastEnd(times);
  const busySeconds = { compute: 0, h2d: 0, d2h: 0, comm: 0 };
  let memory: MemoryCurves | undefined;
  for (const op of section.ops) busySeconds[op.stream] += (times.endSeconds[op.id] ?? 0) - (times.startSeconds[op.id] ?? 0);
  return {
    ...times,
    makespanSeconds,
    busySeconds,
    exposedCopySeconds: Math.max(0, makespanSeconds - lastEnd(runParts(section, freeCopies, cost))),
    get memory() {
      memory ??= memoryCurves(section, buffers, times);
      return memory;
    },
  };
}

function isCopy(op: Op): boolean {
  return op.stream === 'h2d' || op.stream === 'd2h';
}

function lastEnd({ endSeconds }: OpTimes): number {
  return endSeconds.reduce((last, end) => Math.max(last, end), 0);
}

type Device = Pick<CostModel, 'serial' | 'duplexSlowdown'>;

/** Streams are joined after each part: the next part starts when all its ops have ended. */
function runParts(section: Section, seconds: Float64Array, device: Device): OpTimes {
  const times = { startSeconds: new Float64Array(section.ops.length), endSeconds: new Float64Array(section.ops.length).fill(-1) };
  let now = 0;
  for (const part of section.parts) now = new PartRun(section.ops.slice(part.start, part.end), seconds, device, times, now).run();
  return times;
}

/** One stream of a part: its ops in order, the next one to start, and the one that runs. */
interface StreamRun {
  readonly stream: Stream;
  readonly ops: readonly Op[];
  next: number;
  running: Op | undefined;
  /** Seconds of work left at full rate. */
  remaining: number;
}

/** The event loop of one part: the next op of each stream runs when what it waits for is complete. */
class PartRun {
  private readonly streams: readonly StreamRun[];
  private readonly seconds: Float64Array;
  private readonly device: Device;
  private readonly times: OpTimes;
  private now: number;

  constructor(ops: readonly Op[], seconds: Float64Array, device: Device, times: OpTimes, now: number) {
    this.streams = STREAMS.map((stream) => ({
      stream,
      ops: ops.filter((op) => op.stream === stream),
      next: 0,
      running: undefined,
      remaining: 0,
    }));
    this.seconds = seconds;
    this.device = device;
    this.times = times;
    this.now = now;
  }

  /** Returns the time at which the last op ended. */
  run(): number {
    for (;;) {
      if (this.device.serial) this.startOne();
      else for (const stream of this.streams) this.startNext(stream);
      if (!this.advance()) return this.now;
    }
  }

  /** The earliest op that may start, in the order of the section. */
  private startOne(): void {
    const nextId = ({ ops, next }: StreamRun): number => ops[next]?.id ?? 0;
    let first: StreamRun | undefined;
    for (const stream of this.streams) {
      if (this.ready(stream) && (first === undefined || nextId(stream) < nextId(first))) first = stream;
    }
    if (first !== undefined) this.startNext(first);
  }

  private startNext(stream: StreamRun): void {
    if (!this.ready(stream)) return;
    const op = stream.ops[stream.next] as Op;
    stream.next += 1;
    stream.running = op;
    stream.remaining = this.seconds[op.id] ?? 0;
    this.times.startSeconds[op.id] = this.now;
  }

  private ready({ running, ops, next }: StreamRun): boolean {
    const op = ops[next];
    if (running !== undefined || op === undefined) return false;
    for (const wait of op.waits) if ((this.times.endSeconds[wait] ?? -1) < 0) return false;
    return true;
  }

  /** To the next end of an op; false when nothing runs. */
  private advance(): boolean {
    const slowdown = this.copySlowdown();
    let step = Number.POSITIVE_INFINITY;
    let busy = false;
    for (const stream of this.streams) {
      if (stream.running === undefined) continue;
      busy = true;
      step = Math.min(step, secondsLeft(stream, slowdown));
    }
    if (!busy) return false;
    this.now += step;
    for (const stream of this.streams) {
      const op = stream.running;
      if (op === undefined) continue;
      const left = secondsLeft(stream, slowdown);
      stream.remaining *= left > 0 ? (left - step) / left : 0;
      if (left > step) continue;
      this.times.endSeconds[op.id] = this.now;
      stream.running = undefined;
    }
    return true;
  }

  /** Copies of both directions at once share the link. */
  private copySlowdown(): number {
    let numCopies = 0;
    for (const { running } of this.streams) if (running !== undefined && isCopy(running)) numCopies += 1;
    return numCopies === 2 ? this.device.duplexSlowdown : 1;
  }
}

/** Of the op that a stream runs. */
function secondsLeft({ stream, remaining }: StreamRun, copySlowdown: number): number {
  return stream === 'h2d' || stream === 'd2h' ? remaining * copySlowdown : remaining;
}

/**
 * The executor issues ops in order, so a wait can only be met by an earlier op. Whatever waits for a later one never starts, and neither
 * does what comes after it on its stream or waits for it.
 */
function refuseStuck(section: Section, buffers: readonly Buffer[]): void {
  const stuck = new Map<number, string>();
  for (const part of section.parts) {
    const blocked = new Map<Stream, number>();
    for (const op of section.ops.slice(part.start, part.end)) {
      const reasons = op.waits.flatMap((wait) => whyNever(wait, op, section, stuck));
      const ahead = blocked.get(op.stream);
      if (reasons.length === 0 && ahead === undefined) continue;
      blocked.set(op.stream, op.id);
      stuck.set(op.id, reasons.length > 0 ? `waits for ${reasons.join(' and ')}` : `is behind op ${ahead} on ${op.stream}`);
    }
  }
  if (stuck.size === 0) return;
  const lines = [...stuck].map(([id, why]) => `  ${opToText(section.ops[id] as Op, buffers)}: ${why}`);
  throw new FpdtError(`${stuck.size} ops of ${section.name} can never start:\n${lines.join('\n')}`, {
    code: 'schedule-stuck',
    hint: 'an op may wait only for earlier ops of its section',
    details: { section: section.name, ops: [...stuck].map(([op, reason]) => ({ op, reason })) },
  });
}

function whyNever(wait: number, op: Op, section: Section, stuck: ReadonlyMap<number, string>): readonly string[] {
  const other = section.ops[wait];
  if (other === undefined) return [`op ${wait}, which does not exist`];
  if (wait >= op.id) return [`op ${wait} ${other.kind} on ${other.stream}, which is issued ${wait === op.id ? 'by itself' : 'later'}`];
  return stuck.has(wait) ? [`op ${wait} ${other.kind} on ${other.stream}, which never starts`] : [];
}
