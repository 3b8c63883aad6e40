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
    const rival = findRival(touch, sharing[buffer] ?? []);
    if (rival !== undefined) findings.push({ op: touch.op.id, problem: raceText(touch, rival, buffers) });
    for (const other of sharing[buffer] ?? []) removeIf(live[other] ?? [], (earlier) => supersedes(touch, earlier, ordered));
    live[buffer]?.push(touch);
  }

  function findRival(touch: Touch, among: readonly number[]): Touch | undefined {
    for (const buffer of among) {
      const rival = live[buffer]?.find((other) => overlapChanged(touch, other) && other.op !== touch.op && !ordered(other.op, touch.op));
      if (rival !== undefined) return rival;
    }
    return undefined;
  }
}

function overlapChanged(touch: Touch, other: Touch): boolean {
  return other.start < touch.end && touch.start < other.end && (other.changes || touch.changes);
}

/** An earlier touch need not be remembered when a later change covers it: ops ordered after the change are after it too. */
function supersedes(now: Touch, earlier: Touch, ordered: Ordered): boolean {
  if (now.start > earlier.start || earlier.end > now.end) return false;
  const sameReader = !now.changes && !earlier.changes && now.op.stream === earlier.op.stream;
  return sameReader || (now.changes && ordered(earlier.op, now.op));
}

function removeIf<T>(items: T[], isGone: (item: T) => boolean): void {
  let kept = 0;
  for (const item of items) {
    if (!isGone(item)) items[kept++] = item;
  }
  items.length = kept;
}

function raceText(touch: Touch, rival: Touch, buffers: readonly Buffer[]): string {
  const view = ({ access }: Touch): string => accessToText(access, buffers);
  const { id, kind, stream } = rival.op;
  return `races with op ${id} ${kind} on ${stream}: ${view(touch)} shares bytes with its ${view(rival)}, and no wait orders them`;
}
