/** Races: two ops of one part that touch the same bytes, one of them changing them, without an order between them. */
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
  return section.parts.flatMap((part) => checkPart(section, part, input));
}

/**
 * For each op the latest op of every stream that is surely complete when it starts: the same stream's earlier ops, and
 * whatever its waits imply.
 */
function happensBefore(ops: readonly Op[]): (earlier: Op, later: Op) => boolean {
  const clocks = new Map<number, readonly number[]>();
  const last = STREAMS.map(() => -1);
  for (const op of ops) {
    const own = STREAMS.indexOf(op.stream);
    const sources = [last[own] ?? -1, ...op.waits].filter((id) => id >= 0);
    const clock = STREAMS.map((_, stream) => Math.max(-1, ...sources.map((id) => known(id, stream))));
    clocks.set(op.id, clock);
    last[own] = op.id;
  }
  return (earlier, later) => (clocks.get(later.id)?.[STREAMS.indexOf(earlier.stream)] ?? -1) >= earlier.id;

  function known(id: number, stream: number): number {
    const op = ops[id - (ops[0]?.id ?? 0)];
    return op !== undefined && STREAMS.indexOf(op.stream) === stream ? id : (clocks.get(id)?.[stream] ?? -1);
  }
}

function checkPart(section: Section, part: SectionPart, input: VerifyInput): readonly Finding[] {
  const ops = section.ops.slice(part.start, part.end);
  const ordered = happensBefore(ops);
  const live: Record<'hbm' | 'host', Touch[]> = { hbm: [], host: [] };
  const findings: Finding[] = [];
  const view = ({ access }: Touch): string => accessToText(access, input.buffers);
  for (const op of ops) {
    for (const { pool, touch } of touchesOf(op, input)) {
      const rival = live[pool].find(
        (other) =>
          other.op !== op &&
          (other.changes || touch.changes) &&
          other.start < touch.end &&
          touch.start < other.end &&
          !ordered(other.op, op),
      );
      if (rival !== undefined) {
        findings.push({
          op: op.id,
          problem: `races with op ${rival.op.id} ${rival.op.kind} on ${rival.op.stream}: ${view(touch)} shares bytes with its ${view(rival)}, and no wait orders them`,
        });
      }
      const kept = live[pool].filter((other) => !supersedes(touch, other, ordered));
      live[pool] = [...kept, touch];
    }
  }
  return findings;
}

function touchesOf(op: Op, { buffers, segmentLayers }: VerifyInput): readonly { readonly pool: 'hbm' | 'host'; readonly touch: Touch }[] {
  return (['reads', 'writes', 'accumulates'] as const).flatMap((group) =>
    op[group].map((access) => {
      const { pool, start, end } = byteRange(op, access, buffers, 0, segmentLayers);
      return { pool, touch: { start, end, op, changes: group !== 'reads', access } };
    }),
  );
}

/** An earlier touch need not be remembered when a later change covers it: ops ordered after the change are after it too. */
function supersedes(now: Touch, earlier: Touch, ordered: (a: Op, b: Op) => boolean): boolean {
  const covers = now.start <= earlier.start && earlier.end <= now.end;
  const sameReader = !now.changes && !earlier.changes && now.op.stream === earlier.op.stream;
  return covers && (sameReader || (now.changes && ordered(earlier.op, now.op)));
}
