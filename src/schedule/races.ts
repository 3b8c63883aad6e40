/** Races: two ops of one part that touch the same bytes, one of them changing them, without an order between them. */
import type { Buffer } from './buffer.js';
import { completionClocks } from './clocks.js';
import { byteRange } from './legality.js';
import { type Access, type Op, STREAMS, type Section, type SectionPart } from './op.js';
import { accessToText } from './text.js';
import type { Finding, VerifyInput } from './verify.js';

interface Touch {
  readonly start: number;
  readonly end: number;
  readonly op: Op;
  readonly changes: boolean;
  readonly access: Access;
}

export function checkRaces(section: Section, input: VerifyInput): readonly Finding[] {
  const sharing = sharingBuffers(input.buffers);
  return section.parts.flatMap((part) => checkPart(section, part, sharing, input));
}

/** For each buffer the ids of those whose addresses overlap its own, itself among them: only through these can an access meet another. */
function sharingBuffers(buffers: readonly Buffer[]): readonly (readonly number[])[] {
  const end = ({ offset, instances, instanceBytes }: Buffer): number => offset + instances * instanceBytes;
  const share = (a: Buffer, b: Buffer): boolean => a.pool === b.pool && a.offset < end(b) && b.offset < end(a);
  return buffers.map((a) => buffers.flatMap((b, id) => (share(a, b) ? [id] : [])));
}

type Ordered = (earlier: Op, later: Op) => boolean;

/** Whether the earlier of two ops of a part is surely complete when the later one starts. */
function happensBefore(ops: readonly Op[], part: SectionPart): Ordered {
  const clocks = completionClocks(ops, part);
  return (earlier, later) => (clocks[(later.id - part.start) * STREAMS.length + STREAMS.indexOf(earlier.stream)] ?? -1) >= earlier.id;
}

function checkPart(
  section: Section,
  part: SectionPart,
  sharing: readonly (readonly number[])[],
  { buffers, segmentLayers }: VerifyInput,
): readonly Finding[] {
  const ops = section.ops.slice(part.start, part.end);
  const ordered = happensBefore(section.ops, part);
  /** Touches that a later op may still race with, by buffer. */
  const live: Touch[][] = buffers.map(() => []);
  const findings: Finding[] = [];
  for (const op of ops) {
    for (const group of ['reads', 'writes', 'accumulates'] as const) {
      for (const access of op[group]) {
        const { start, end } = byteRange(op, access, buffers, 0, segmentLayers);
        check({ start, end, op, changes: group !== 'reads', access });
      }
    }
  }
  return findings;

  function check(touch: Touch): void {
    const { buffer } = touch.access;
    let rival: Touch | undefined;
    for (const other of sharing[buffer] ?? []) {
      const found = meet(touch, live[other] ?? [], ordered);
      rival ??= found;
    }
    if (rival !== undefined) findings.push({ op: touch.op.id, problem: raceText(touch, rival, buffers) });
    live[buffer]?.push(touch);
  }
}

/** The first of the earlier touches that `now` races with; those that it supersedes are dropped in place. */
function meet(now: Touch, touches: Touch[], ordered: Ordered): Touch | undefined {
  let rival: Touch | undefined;
  let kept = 0;
  for (const earlier of touches) {
    if (earlier.start < now.end && now.start < earlier.end) {
      const inOrder = earlier.op === now.op || ordered(earlier.op, now.op);
      if (!inOrder && (earlier.changes || now.changes)) rival ??= earlier;
      if (supersedes(now, earlier, inOrder)) continue;
    }
    touches[kept++] = earlier;
  }
  if (kept < touches.length) touches.length = kept;
  return rival;
}

/** An earlier touch need not be remembered when a later change covers it: ops ordered after the change are after it too. */
function supersedes(now: Touch, earlier: Touch, inOrder: boolean): boolean {
  const covers = now.start <= earlier.start && earlier.end <= now.end;
  const sameReader = !now.changes && !earlier.changes && now.op.stream === earlier.op.stream;
  return covers && (sameReader || (now.changes && inOrder));
}

function raceText(touch: Touch, rival: Touch, buffers: readonly Buffer[]): string {
  const view = ({ access }: Touch): string => accessToText(access, buffers);
  const { id, kind, stream } = rival.op;
  return `races with op ${id} ${kind} on ${stream}: ${view(touch)} shares bytes with its ${view(rival)}, and no wait orders them`;
}
