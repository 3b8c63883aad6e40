/** Which buffer instance wrote each byte of the arenas last, and whether a read finds its own value there. */
import { byteRange } from './legality.js';
import type { Access, Op, Section } from './op.js';
import { accessToText } from './text.js';
import type { Finding, VerifyInput } from './verify.js';

interface Span {
  readonly start: number;
  readonly end: number;
  readonly buffer: number;
}

/** A write to a buffer that outlives its section. */
interface LastingWrite {
  readonly op: Op;
  readonly access: Access;
}

export class MemoryState {
  private readonly spans: Record<'hbm' | 'host', Span[]> = { hbm: [], host: [] };
  private readonly input: VerifyInput;
  /** By section, as nearly all segments are skipped. */
  private readonly lasting = new Map<Section, readonly LastingWrite[]>();

  constructor(input: VerifyInput) {
    this.input = input;
  }

  runSection(section: Section, segment: number): readonly Finding[] {
    const findings: Finding[] = [];
    for (const op of section.ops) this.runOp(op, segment, findings);
    return findings;
  }

  /** Only what a section leaves behind: its writes to buffers that outlive it. For segments whose reads were checked on another. */
  skipSection(section: Section, segment: number): void {
    const writes = this.lasting.get(section) ?? this.lastingWrites(section);
    this.lasting.set(section, writes);
    for (const { op, access } of writes) this.write(op, access, segment);
  }

  private lastingWrites({ ops }: Section): readonly LastingWrite[] {
    const outlives = ({ buffer }: Access): boolean => this.input.buffers[buffer]?.scope === 'step';
    return ops.flatMap((op) => [...op.writes, ...op.accumulates].filter(outlives).map((access) => ({ op, access })));
  }

  private runOp(op: Op, segment: number, findings: Finding[]): void {
    for (const views of [op.reads, op.accumulates]) {
      for (const access of views) {
        const problem = this.read(op, access, segment);
        if (problem !== undefined) findings.push({ op: op.id, problem });
      }
    }
    for (const access of op.writes) this.write(op, access, segment);
    for (const access of op.accumulates) this.write(op, access, segment);
  }

  /** What is wrong with a read, if anything. */
  private read(op: Op, access: Access, segment: number): string | undefined {
    const { pool, start, end } = this.bytes(op, access, segment);
    const spans = this.spans[pool];
    let from = start;
    for (let i = firstEndingAfter(spans, start); i < spans.length; i++) {
      const span = spans[i] as Span;
      if (span.start > from || span.start >= end) break;
      if (span.buffer !== access.buffer)
        return `reads ${this.view(access)}, whose bytes were overwritten through ${this.input.buffers[span.buffer]?.name}`;
      from = span.end;
    }
    return from >= end ? undefined : `reads ${this.view(access)}, which nothing has written`;
  }

  /** Replaces the spans that the written bytes touch, keeping what sticks out on either side. */
  private write(op: Op, access: Access, segment: number): void {
    const { pool, start, end } = this.bytes(op, access, segment);
    const spans = this.spans[pool];
    const { buffer } = access;
    if (isWithin(spans[firstEndingAfter(spans, start)], start, end, buffer)) return;
    const first = firstEndingAfter(spans, start - 1);
    let next = first;
    let joined: Span = { start, end, buffer };
    const pieces: Span[] = [];
    for (; next < spans.length && (spans[next] as Span).start <= end; next++) {
      const span = spans[next] as Span;
      if (span.buffer === buffer) joined = { start: Math.min(joined.start, span.start), end: Math.max(joined.end, span.end), buffer };
      else pieces.push(...outside(span, start, end));
    }
    const before = pieces.filter((piece) => piece.start < start);
    const after = pieces.filter((piece) => piece.start >= start);
    spans.splice(first, next - first, ...before, joined, ...after);
  }

  private bytes(op: Op, access: Access, segment: number) {
    return byteRange(op, access, this.input.buffers, segment, this.input.segmentLayers);
  }

  private view(access: Access): string {
    return accessToText(access, this.input.buffers);
  }
}

/** Index of the first span that ends after `byte`; spans are sorted and do not overlap. */
function firstEndingAfter(spans: readonly Span[], byte: number): number {
  let low = 0;
  let high = spans.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((spans[middle] as Span).end > byte) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Most writes repeat an earlier one: the buffer is the last writer of all these bytes already. */
function isWithin(span: Span | undefined, start: number, end: number, buffer: number): boolean {
  return span !== undefined && span.buffer === buffer && span.start <= start && end <= span.end;
}

/** The parts of a span that lie before `start` and from `end` on. */
function outside(span: Span, start: number, end: number): readonly Span[] {
  return [
    ...(span.start < start ? [{ ...span, end: Math.min(span.end, start) }] : []),
    ...(span.end > end ? [{ ...span, start: Math.max(span.start, end) }] : []),
  ];
}
