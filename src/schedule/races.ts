/** Races: two ops of one part that touch the same bytes, one of them changing them, without an order between them. */
import type { Buffer } from './buffer.js';
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

/**
 * For each op the latest op of every stream that is surely complete when it starts: the same stream's earlier ops, and
 * whatever its waits imply.
 */
function happensBefore(ops: readonly Op[]): Ordered {
  const first = ops[0]?.id ?? 0;
  const numStreams = STREAMS.length;
  const streams = Uint8Array.from(ops, ({ stream }) => STREAMS.indexOf(stream));
  const clocks = new Int32Array(ops.length * numStreams).fill(-1);
  const last = new Int32Array(numStreams).fill(-1);
  for (const [i, op] of ops.entries()) {
    const own = streams[i] ?? 0;
    learn(i, last[own] ?? -1);
    for (const wait of op.waits) learn(i, wait);
    last[own] = op.id;
  }
  return (earlier, later) => (clocks[(later.id - first) * numStreams + (streams[earlier.id - first] ?? 0)] ?? -1) >= earlier.id;

  /** Op number i starts after op `done`, and so after all that came before that. */
  function learn(i: number, done: number): void {
    const source = done - first;
    if (source < 0 || source >= ops.length) return;
    for (let s = 0; s < numStreams; s++) {
      const known = s === streams[source] ? done : (clocks[source * numStreams + s] ?? -1);
      const at = i * numStreams + s;
      clocks[at] = Math.max(clocks[at] ?? -1, known);
    }
  }
}

function checkPart(
  section: Section,
  part: SectionPart,
  sharing: readonly (readonly number[])[],
  { buffers, segmentLayers }: VerifyInput,
): readonly Finding[] {
  const ops = section.ops.slice(part.start, part.end);
  const ordered = happensBefore(ops);
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
