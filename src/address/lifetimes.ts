/**
 * Which buffers are alive together. A buffer of `step` scope lives from the first to the last call that touches it. One of `call`
 * scope lives inside a call: two of them may share addresses where no section touches both, and where in every section that does all
 * ops of one are surely complete before any op of the other starts. Entry masks order what shares addresses in different calls.
 */
import type { Buffer } from '../schedule/buffer.js';
import type { Access, Section } from '../schedule/op.js';
import type { Program } from '../schedule/program.js';
import type { Schedule } from '../schedule/schedule.js';
import { completionClocks, orderOf } from './clocks.js';

/** Row-major square matrix, 1 where two buffers may not overlap in memory. */
export interface ConflictMatrix {
  readonly size: number;
  readonly cells: Uint8Array;
}

/** Conflicts between all buffers, by position in `buffers`. Buffers of different pools never conflict. */
export function findConflicts(schedule: Pick<Schedule, 'buffers' | 'sections' | 'programs' | 'streams'>): ConflictMatrix {
  return withSteps(conflictsOfCalls(schedule), schedule.buffers, schedule.programs);
}

/** What sections say of buffers, whoever calls them: which they touch, and which may not overlap in a call. */
export interface CallConflicts {
  readonly matrix: ConflictMatrix;
  /** By section. */
  readonly touched: ReadonlyMap<string, readonly number[]>;
}

export function conflictsOfCalls({ buffers, sections, streams }: Pick<Schedule, 'buffers' | 'sections' | 'streams'>): CallConflicts {
  const matrix = { size: buffers.length, cells: new Uint8Array(buffers.length ** 2) };
  const add = adderTo(matrix, buffers);
  for (const section of sections) conflictsInSection(section, streams, buffers, add);
  return { matrix, touched: new Map(sections.map((section) => [section.name, touchedBuffers(section, buffers.length)])) };
}

type Add = (a: number, b: number) => void;

function adderTo({ size, cells }: ConflictMatrix, buffers: readonly Pick<Buffer, 'pool'>[]): Add {
  return (a, b) => {
    if (a === b || buffers[a]?.pool !== buffers[b]?.pool) return;
    cells[a * size + b] = 1;
    cells[b * size + a] = 1;
  };
}

/** And pairs with a buffer of `step` scope: a call that may touch one lies between the first and the last call that touch the other. */
export function withSteps(
  { matrix, touched }: CallConflicts,
  buffers: readonly Pick<Buffer, 'pool' | 'scope'>[],
  { train }: Pick<Schedule, 'programs'>['programs'],
): ConflictMatrix {
  const all = { ...matrix, cells: matrix.cells.slice() };
  const add = adderTo(all, buffers);
  const uses = usesOf(touched, buffers.length, train);
  for (const [i, { scope }] of buffers.entries()) {
    if (scope !== 'step') continue;
    const [first, last] = [uses[i]?.[0], uses[i]?.at(-1)];
    if (first === undefined || last === undefined) continue;
    for (const [j, b] of buffers.entries()) {
      const calls = uses[j] ?? [];
      const overlap =
        b.scope === 'step'
          ? (calls[0] ?? Number.POSITIVE_INFINITY) <= last && first <= (calls.at(-1) ?? -1)
          : calls.some((at) => first <= at && at <= last);
      if (overlap) add(i, j);
    }
  }
  return all;
}

/** By buffer the positions of the calls that touch it, in order. */
function usesOf(touched: CallConflicts['touched'], numBuffers: number, { turns }: Program): readonly (readonly number[])[] {
  const uses = Array.from({ length: numBuffers }, (): number[] => []);
  let position = 0;
  for (const turn of turns) {
    for (const { section } of turn.calls) {
      for (const buffer of touched.get(section) ?? []) uses[buffer]?.push(position);
      position += 1;
    }
  }
  return uses;
}

/** Numbers of buffers, in order of first use. */
function touchedBuffers({ ops }: Section, numBuffers: number): readonly number[] {
  const isTouched = new Uint8Array(numBuffers);
  const touched: number[] = [];
  const touch = ({ buffer }: Access): void => {
    if (isTouched[buffer] !== 0) return;
    isTouched[buffer] = 1;
    touched.push(buffer);
  };
  for (const op of ops) {
    for (const access of op.reads) touch(access);
    for (const access of op.writes) touch(access);
    for (const access of op.accumulates) touch(access);
  }
  return touched;
}

function conflictsInSection(section: Section, streams: readonly string[], buffers: readonly Buffer[], add: Add): void {
  const order = orderOf(section.ops, streams);
  const uses = findUses(section, order.streams, streams.length, buffers);
  const clocks = completionClocks(order, streams.length);
  for (const [n, a] of uses.entries()) {
    for (const b of uses.slice(n + 1)) {
      if (buffers[a.buffer]?.pool !== buffers[b.buffer]?.pool) continue;
      if (!precedes(a, b, clocks) && !precedes(b, a, clocks)) add(a.buffer, b.buffer);
    }
  }
}

/** First and last op of each stream that touches a buffer; -1 where the stream never does. */
interface Use {
  readonly buffer: number;
  readonly first: Int32Array;
  readonly last: Int32Array;
}

/** Uses of the buffers of `call` scope in one section. */
function findUses({ ops }: Section, streams: Uint8Array, numStreams: number, buffers: readonly Buffer[]): readonly Use[] {
  const never = (): Int32Array => new Int32Array(numStreams).fill(-1);
  const uses = buffers.map(({ scope }, buffer) => (scope === 'call' ? { buffer, first: never(), last: never() } : undefined));
  const note = (id: number, stream: number, { buffer }: Access): void => {
    const use = uses[buffer];
    if (use === undefined) return;
    if ((use.first[stream] as number) < 0) use.first[stream] = id;
    use.last[stream] = id;
  };
  for (const { id, reads, writes, accumulates } of ops) {
    const stream = streams[id] as number;
    for (const access of reads) note(id, stream, access);
    for (const access of writes) note(id, stream, access);
    for (const access of accumulates) note(id, stream, access);
  }
  return uses.filter((use): use is Use => use?.last.some((id) => id >= 0) === true);
}

function precedes(a: Use, b: Use, clocks: Int32Array): boolean {
  for (const first of b.first) {
    if (first < 0) continue;
    const row = first * a.last.length;
    if (a.last.some((last, stream) => (clocks[row + stream] ?? -1) < last)) return false;
  }
  return true;
}
