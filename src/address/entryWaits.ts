/**
 * Entry masks: which streams must have finished what was queued before a call until the call's first op on a stream may start.
 * Calls share no waits op by op; between them bytes that two streams touch, one changing them, are ordered stream by stream.
 */
import type { Buffer } from '../schedule/buffer.js';
import type { Access, Section } from '../schedule/op.js';
import type { Call } from '../schedule/program.js';
import { type Schedule, sectionNamed } from '../schedule/schedule.js';
import { byteRange } from './bytes.js';
import { completionClocks, type OpOrder, orderOf } from './clocks.js';

/** Bytes [start, end) of a pool that some op touches, relative to an argument where `param` is one. */
interface Extent {
  readonly buffer: number;
  readonly param: number;
  start: number;
  end: number;
  readonly changes: boolean;
  /** By argument: calls of many layers touch the same bytes. */
  readonly touches: Map<number, Touch>;
}

/** What one run of a section touches on each stream, and which streams know of each other when it begins and ends. */
interface Summary {
  /** By stream. */
  readonly extents: readonly (readonly Extent[])[];
  readonly isUsed: readonly boolean[];
  /** [s][t]: whether the first op on stream s starts after some op on stream t. */
  readonly startsAfter: readonly (readonly boolean[])[];
  /** [s][t]: whether the last op on stream s starts after all, or (partly) after some, ops on stream t. */
  readonly knowsAll: readonly (readonly boolean[])[];
  readonly knowsSome: readonly (readonly boolean[])[];
}

export function withEntryWaits(schedule: Schedule): Schedule {
  const { sections, streams, buffers, programs } = schedule;
  const summaries = new Map(sections.map((section) => [section.name, summaryOf(section, streams, buffers)]));
  const summaryOfCall = ({ section }: Call): Summary =>
    summaries.get(section) ?? summaryOf(sectionNamed(sections, section), streams, buffers);
  const { turns } = programs.train;
  const order = new StreamOrder(streams.length, buffers);
  for (const { calls } of turns) for (const call of calls) if (call.owner === 'plan') order.leaveBehind(call, summaryOfCall(call));
  const ordered = turns.map((turn) => ({
    ...turn,
    calls: turn.calls.map(
      (call): Call => ({ ...call, waits: call.owner === 'zero' ? streams.map(() => 0) : order.enter(call, summaryOfCall(call)) }),
    ),
  }));
  return { ...schedule, programs: { train: { turns: ordered } } };
}

function summaryOf(section: Section, streams: readonly string[], buffers: readonly Buffer[]): Summary {
  const order = orderOf(section.ops, streams);
  const byStream = streams.map(() => new Map<number, Extent>());
  const noted = streams.map(() => [new Set<Access>(), new Set<Access>()] as const);
  const note = (stream: number, access: Access, changes: boolean): void => {
    const before = noted[stream]?.[changes ? 1 : 0];
    if (before?.has(access) === true) return;
    before?.add(access);
    const known = byStream[stream];
    const buffer = buffers[access.buffer];
    if (known === undefined || buffer === undefined) return;
    const key = (access.buffer * (section.params.length + 1) + access.param + 1) * 2 + (changes ? 1 : 0);
    const { start, end } = byteRange(access, buffer, NO_ARGS);
    const extent = known.get(key);
    if (extent === undefined) known.set(key, { buffer: access.buffer, param: access.param, start, end, changes, touches: new Map() });
    else {
      extent.start = Math.min(extent.start, start);
      extent.end = Math.max(extent.end, end);
    }
  };
  section.ops.forEach((op, id) => {
    const stream = order.streams[id] ?? 0;
    for (const access of op.reads) note(stream, access, false);
    for (const access of op.writes) note(stream, access, true);
    for (const access of op.accumulates) note(stream, access, true);
  });
  return { extents: byStream.map((extents) => [...extents.values()]), ...knowledge(order, streams) };
}

/** Extents are those of arguments 0; a call moves them. */
const NO_ARGS: readonly number[] = [];

function knowledge(order: OpOrder, streams: readonly string[]): Omit<Summary, 'extents'> {
  const clocks = completionClocks(order, streams.length);
  const first = streams.map((_, stream) => order.streams.indexOf(stream));
  const last = streams.map((_, stream) => order.streams.lastIndexOf(stream));
  const startsAfter = (s: number, t: number): boolean => (first[s] ?? -1) >= 0 && (clocks[(first[s] ?? 0) * streams.length + t] ?? -1) >= 0;
  /** The latest op on stream t that is complete when the last op on stream s starts. */
  const seen = (s: number, t: number): number => ((last[s] ?? -1) < 0 ? -1 : (clocks[(last[s] ?? 0) * streams.length + t] ?? -1));
  return {
    isUsed: last.map((id) => id >= 0),
    startsAfter: first.map((_, s) => streams.map((_name, t) => startsAfter(s, t))),
    knowsAll: last.map((_, s) => last.map((id, t) => id >= 0 && seen(s, t) >= id)),
    knowsSome: last.map((_, s) => last.map((_id, t) => seen(s, t) >= 0)),
  };
}

/** Bytes that calls touch on one stream. */
interface Touch {
  readonly pool: string;
  readonly start: number;
  readonly end: number;
  readonly changes: boolean;
  /** The latest of them; -1 before the first. */
  call: number;
}

/**
 * What each stream knows of the others from call to call. Calls of the micro-step before come first: the first call of a micro-step
 * waits for all they did, but a stream that has no op in that call may not have waited when its first op comes.
 */
class StreamOrder {
  private readonly numStreams: number;
  private readonly buffers: readonly Buffer[];
  private numCalls = 0;
  private isFirst = true;
  /** [s][t]: the latest call whose work on t, and all before it, is complete as seen by what stream s queues next; -1 for none. */
  private readonly known: number[][];
  /** By stream what calls touched, and the same by its content. */
  private readonly touches: Touch[][];
  private readonly byContent: Map<string, Touch>[];

  constructor(numStreams: number, buffers: readonly Buffer[]) {
    this.numStreams = numStreams;
    this.buffers = buffers;
    this.known = Array.from({ length: numStreams }, () => Array.from({ length: numStreams }, () => -1));
    this.touches = Array.from({ length: numStreams }, () => []);
    this.byContent = Array.from({ length: numStreams }, () => new Map());
  }

  /** A call of the micro-step before. */
  leaveBehind(call: Call, { extents }: Summary): void {
    this.remember(this.touchesOf(call, extents));
    this.numCalls += 1;
  }

  /** The entry mask of the next call. The first one of a micro-step waits for everything before it. */
  enter(call: Call, summary: Summary): readonly number[] {
    const number = this.numCalls;
    const touches = this.touchesOf(call, summary.extents);
    const { isUsed } = summary;
    const waits = this.isFirst ? isUsed.map((_, s) => this.allBut(s)) : this.waitsOf(touches, summary, number);
    if (this.isFirst) for (const [s, known] of this.known.entries()) if (isUsed[s] === true) known.fill(number - 1);
    this.isFirst = false;
    this.leave(number, summary);
    this.remember(touches);
    this.numCalls += 1;
    return waits;
  }

  private allBut(stream: number): number {
    return 2 ** this.numStreams - 1 - 2 ** stream;
  }

  private touchesOf({ args }: Call, extents: Summary['extents']): readonly (readonly Touch[])[] {
    return extents.map((own, stream) =>
      own.map((extent) => this.touchOf(extent, extent.param < 0 ? 0 : (args[extent.param] ?? 0), stream)),
    );
  }

  private touchOf({ buffer, start, end, changes, touches }: Extent, argument: number, stream: number): Touch {
    const known = touches.get(argument);
    if (known !== undefined) return known;
    const { pool, instanceBytes } = this.buffers[buffer] as Buffer;
    const shift = argument * instanceBytes;
    const content = `${pool}/${start + shift}/${end + shift}/${changes}`;
    const byContent = this.byContent[stream] as Map<string, Touch>;
    const touch = byContent.get(content) ?? { pool, start: start + shift, end: end + shift, changes, call: -1 };
    byContent.set(content, touch);
    touches.set(argument, touch);
    return touch;
  }

  private remember(touches: readonly (readonly Touch[])[]): void {
    for (const [s, own] of touches.entries()) {
      for (const touch of own) {
        if (touch.call < 0) this.touches[s]?.push(touch);
        touch.call = this.numCalls;
      }
    }
  }

  /** By stream the fewest of those whose earlier work conflicts and is not known to be complete, such that all of it is then known. */
  private waitsOf(touches: readonly (readonly Touch[])[], { isUsed, startsAfter }: Summary, number: number): readonly number[] {
    /** A mask is for what was queued before the call, so it tells what the stream knew then. */
    const before = this.known.map((row) => [...row]);
    return this.known.map((known, s) => {
      if (isUsed[s] !== true) return 0;
      this.raiseAll(known, startsAfter[s] ?? [], number - 1, this.known);
      const needed = known.map((call, t) => (t === s ? -1 : this.lastConflict(touches[s] ?? [], t, call)));
      const unknown = needed.flatMap((call, t) => (call > (known[t] ?? -1) ? [t] : []));
      const tell = (some: readonly number[]): boolean =>
        unknown.every((t) => some.some((u) => u === t || (before[u]?.[t] ?? -1) >= (needed[t] ?? -1)));
      const waits = unknown.reduce((some, t) => {
        const fewer = some.filter((u) => u !== t);
        return tell(fewer) ? fewer : some;
      }, unknown);
      const mask = known.map((_, t) => waits.includes(t));
      this.raiseAll(known, mask, number - 1, before);
      return mask.reduce((sum, isSet, t) => sum + (isSet ? 2 ** t : 0), 0);
    });
  }

  /** The latest call in which stream t touched what is touched now, one changing it, where it is later than `known`. */
  private lastConflict(own: readonly Touch[], t: number, known: number): number {
    let latest = known;
    for (const other of this.touches[t] ?? []) if (other.call > latest && meetsAny(other, own)) latest = other.call;
    return latest;
  }

  /** What the last op of each stream knows of the others when the call's own work is queued. */
  private leave(number: number, { knowsAll, knowsSome }: Summary): void {
    const before = this.known.map((row) => [...row]);
    for (const [s, known] of this.known.entries()) {
      this.raiseAll(known, knowsSome[s] ?? [], number - 1, before);
      for (let t = 0; t < this.numStreams; t++) if (knowsAll[s]?.[t] === true) known[t] = number;
    }
  }

  /** An op that starts after one of a stream's in a call knows all that the stream did before the call, and knew then. */
  private raiseAll(known: number[], others: readonly boolean[], call: number, before: readonly (readonly number[])[]): void {
    for (const [t, isKnown] of others.entries()) {
      if (!isKnown) continue;
      known[t] = Math.max(known[t] ?? -1, call);
      raise(known, before[t] ?? []);
    }
  }
}

function meetsAny({ pool, start, end, changes }: Touch, touches: readonly Touch[]): boolean {
  for (const one of touches) if ((changes || one.changes) && one.start < end && start < one.end && one.pool === pool) return true;
  return false;
}

/** Whatever another stream knew is known too. */
function raise(known: number[], other: readonly number[]): void {
  other.forEach((call, stream) => {
    known[stream] = Math.max(known[stream] ?? -1, call);
  });
}
