/**
 * Which buffers are alive together. A buffer of `step` scope lives from the first to the last call that touches it. One of `call`
 * scope lives inside a call: two of them may share addresses where no section touches both, and where in every section that does all
 * ops of one are surely complete before any op of the other starts. Entry masks order what shares addresses in different calls.
 */
import type { Buffer } from '../schedule/buffer.js';
import type { Access, Section } from '../schedule/op.js';
import type { Schedule } from '../schedule/schedule.js';
import { completionClocks, orderOf } from './clocks.js';

/** Row-major square matrix, 1 where two buffers may not overlap in memory. */
export interface ConflictMatrix {
  readonly size: number;
  readonly cells: Uint8Array;
}

/** Conflicts between all buffers, by position in `buffers`. Buffers of different pools never conflict. */
export function findConflicts(schedule: Pick<Schedule, 'buffers' | 'sections' | 'programs' | 'streams'>): ConflictMatrix {
  const { buffers, sections, streams } = schedule;
  const size = buffers.length;
  const cells = new Uint8Array(size * size);
  const add = (a: number, b: number): void => {
    if (a === b || buffers[a]?.pool !== buffers[b]?.pool) return;
    cells[a * size + b] = 1;
    cells[b * size + a] = 1;
  };
  conflictsOfSteps(schedule, add);
  for (const section of sections) conflictsInSection(section, streams, buffers, add);
  return { size, cells };
}

type Add = (a: number, b: number) => void;

/** Pairs with a buffer of `step` scope: a call that may touch one lies between the first and the last call that touch the other. */
function conflictsOfSteps({ buffers, sections, programs }: Pick<Schedule, 'buffers' | 'sections' | 'programs'>, add: Add): void {
  const calls = programs.train.turns.flatMap((turn) => turn.calls.map(({ section }) => section));
  const positions = new Map(sections.map(({ name }) => [name, calls.flatMap((called, i) => (called === name ? [i] : []))]));
  const uses = buffers.map(() => [] as number[]);
  for (const section of sections) {
    for (const buffer of touchedBuffers(section, buffers.length)) uses[buffer]?.push(...(positions.get(section.name) ?? []));
  }
  const spans = uses.map((calledAt) => ({ first: Math.min(...calledAt), last: Math.max(...calledAt) }));
  buffers.forEach((a, i) => {
    if (a.scope !== 'step') return;
    const span = spans[i];
    if (span === undefined) return;
    buffers.forEach((b, j) => {
      const meets = (at: number): boolean => span.first <= at && at <= span.last;
      const other = spans[j];
      const overlap =
        b.scope === 'step' ? other !== undefined && other.first <= span.last && span.first <= other.last : (uses[j] ?? []).some(meets);
      if (overlap) add(i, j);
    });
  });
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
