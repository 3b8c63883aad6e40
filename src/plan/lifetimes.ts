/**
 * Which buffers are alive together. Buffers of `step` scope live from their first to their last section of a micro-step.
 * Buffers of `section` scope live inside a part: two of them may share addresses only where, in every part that
 * touches both, all ops of one are surely complete before any op of the other starts.
 */
import type { Buffer } from '../schedule/buffer.js';
import { completionClocks } from '../schedule/clocks.js';
import { type Op, SECTIONS, STREAMS, type Section, type SectionName, type SectionPart } from '../schedule/op.js';

export type Schedule = Readonly<Record<SectionName, Section>>;

const NUM_STREAMS = STREAMS.length;

/** Row-major square matrix, 1 where two buffers may not overlap in memory. */
export interface ConflictMatrix {
  readonly size: number;
  readonly cells: Uint8Array;
}

/** Conflicts between all buffers, by position in `buffers`. Buffers of different pools never conflict. */
export function findConflicts(buffers: readonly Buffer[], schedule: Schedule): ConflictMatrix {
  const size = buffers.length;
  const cells = new Uint8Array(size * size);
  const add = (a: number, b: number): void => {
    cells[a * size + b] = 1;
    cells[b * size + a] = 1;
  };
  conflictsBySection(buffers, add);
  for (const section of Object.values(schedule)) {
    for (const part of section.parts) conflictsInPart(section, part, buffers, add);
  }
  return { size, cells };
}

/** Pairs with a buffer of `step` scope: alive in a common section. */
function conflictsBySection(buffers: readonly Buffer[], add: (a: number, b: number) => void): void {
  const alive = buffers.map(sectionMask);
  buffers.forEach((a, i) => {
    if (a.scope !== 'step') return;
    buffers.forEach((b, j) => {
      if (i !== j && a.pool === b.pool && ((alive[i] ?? 0) & (alive[j] ?? 0)) !== 0) add(i, j);
    });
  });
}

/** Bit per section in which the buffer may hold a value. */
export function sectionMask(buffer: Pick<Buffer, 'sections' | 'scope'>): number {
  const indices = buffer.sections.map((name) => SECTIONS.indexOf(name));
  if (buffer.scope === 'section') return indices.reduce((mask, index) => mask | (1 << index), 0);
  const first = Math.min(...indices);
  return SECTIONS.reduce((mask, _, index) => (index >= first && index <= Math.max(...indices) ? mask | (1 << index) : mask), 0);
}

function conflictsInPart(section: Section, part: SectionPart, buffers: readonly Buffer[], add: (a: number, b: number) => void): void {
  const uses = findUses(section, part, buffers);
  const clocks = completionClocks(section.ops, part);
  for (const [n, a] of uses.entries()) {
    for (const b of uses.slice(n + 1)) {
      if (buffers[a.buffer]?.pool !== buffers[b.buffer]?.pool) continue;
      if (!precedes(a, b, clocks, part.start) && !precedes(b, a, clocks, part.start)) add(a.buffer, b.buffer);
    }
  }
}

/** First and last op of each stream that touches a buffer; -1 where the stream never does. */
interface Use {
  readonly buffer: number;
  readonly first: Int32Array;
  readonly last: Int32Array;
}

/** Uses of the buffers of `section` scope in one part. */
function findUses(section: Section, part: SectionPart, buffers: readonly Buffer[]): readonly Use[] {
  const uses = new Map<number, Use>();
  for (let id = part.start; id < part.end; id++) {
    const op = section.ops[id] as Op;
    const stream = STREAMS.indexOf(op.stream);
    for (const group of [op.reads, op.writes, op.accumulates]) {
      for (const { buffer } of group) {
        if (buffers[buffer]?.scope !== 'section') continue;
        const use = uses.get(buffer) ?? { buffer, first: new Int32Array(NUM_STREAMS).fill(-1), last: new Int32Array(NUM_STREAMS).fill(-1) };
        if ((use.first[stream] ?? -1) < 0) use.first[stream] = id;
        use.last[stream] = id;
        uses.set(buffer, use);
      }
    }
  }
  return [...uses.values()];
}

function precedes(a: Use, b: Use, clocks: Int32Array, partStart: number): boolean {
  for (const first of b.first) {
    if (first < 0) continue;
    const row = (first - partStart) * NUM_STREAMS;
    if (a.last.some((last, stream) => (clocks[row + stream] ?? -1) < last)) return false;
  }
  return true;
}
