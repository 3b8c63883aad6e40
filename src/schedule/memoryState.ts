/** Which buffer instance wrote each byte of the arenas last, and whether a read finds its own value there. */
import { byteRange } from './legality.js';
import type { Access, Op, Section } from './op.js';
import { accessToText } from './text.js';
import type { Finding, VerifyInput } from './verify.js';

interface Span {
  readonly start: number;
  readonly end: number;
  readonly owner: string;
}

export class MemoryState {
  private readonly spans: Record<'hbm' | 'host', Span[]> = { hbm: [], host: [] };
  private readonly input: VerifyInput;

  constructor(input: VerifyInput) {
    this.input = input;
  }

  runSection(section: Section, segment: number): readonly Finding[] {
    return section.ops.flatMap((op) => this.runOp(op, segment));
  }

  private runOp(op: Op, segment: number): readonly Finding[] {
    const missing = [...op.reads, ...op.accumulates].flatMap((access) => this.read(op, access, segment));
    for (const access of [...op.writes, ...op.accumulates]) this.write(op, access, segment);
    return missing.map((problem) => ({ op: op.id, problem }));
  }

  private read(op: Op, access: Access, segment: number): readonly string[] {
    const { pool, start, end } = this.bytes(op, access, segment);
    const owner = this.ownerOf(access);
    let from = start;
    for (const span of this.spans[pool]) {
      if (span.end <= from || span.start >= end) continue;
      if (span.start > from) break;
      if (span.owner !== owner) return [`reads ${this.view(access)}, whose bytes were overwritten through ${span.owner}`];
      from = span.end;
    }
    return from >= end ? [] : [`reads ${this.view(access)}, which nothing has written`];
  }

  private write(op: Op, access: Access, segment: number): void {
    const { pool, start, end } = this.bytes(op, access, segment);
    const before: Span[] = [];
    const after: Span[] = [];
    for (const span of this.spans[pool]) {
      if (span.start < start) before.push(span.end > start ? { ...span, end: start } : span);
      if (span.end > end) after.push(span.start < end ? { ...span, start: end } : span);
    }
    this.spans[pool] = joinNeighbours([...before, { start, end, owner: this.ownerOf(access) }, ...after]);
  }

  private bytes(op: Op, access: Access, segment: number) {
    return byteRange(op, access, this.input.buffers, segment, this.input.segmentLayers);
  }

  private ownerOf(access: Access): string {
    return this.input.buffers[access.buffer]?.name ?? '';
  }

  private view(access: Access): string {
    return accessToText(access, this.input.buffers);
  }
}

function joinNeighbours(spans: readonly Span[]): Span[] {
  const joined: Span[] = [];
  for (const span of spans) {
    const last = joined.at(-1);
    if (last !== undefined && last.end === span.start && last.owner === span.owner) joined[joined.length - 1] = { ...last, end: span.end };
    else joined.push(span);
  }
  return joined;
}
