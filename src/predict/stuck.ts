/** Ops that can never start: the executor issues ops in order, so a wait can only be met by an earlier op of the same section. */
import type { Op, Section } from '../schedule/op.js';
import { FpdtError } from '../spec/errors.js';

/** Names every op that waits for a later one, for itself or for none, and what is behind it on its stream or waits for it. */
export function stuckError(section: Section): FpdtError {
  const stuck = new Map<number, string>();
  const blocked = new Map<string, number>();
  for (const op of section.ops) {
    const reasons = op.waits.flatMap((wait) => whyNever(wait, op, section, stuck));
    const ahead = blocked.get(op.stream);
    if (reasons.length === 0 && ahead === undefined) continue;
    blocked.set(op.stream, op.id);
    stuck.set(op.id, reasons.length > 0 ? `waits for ${reasons.join(' and ')}` : `is behind op ${ahead} on ${op.stream}`);
  }
  const lines = [...stuck].map(([id, why]) => `  op ${id} ${section.ops[id]?.kind}: ${why}`);
  return new FpdtError(`${stuck.size} ops of ${section.name} can never start:\n${lines.join('\n')}`, {
    code: 'schedule-stuck',
    hint: 'an op may wait only for earlier ops of its section',
    details: { section: section.name, ops: [...stuck].map(([op, reason]) => ({ op, reason })) },
  });
}

function whyNever(wait: number, op: Op, section: Section, stuck: ReadonlyMap<number, string>): readonly string[] {
  const other = section.ops[wait];
  if (other === undefined) return [`op ${wait}, which does not exist`];
  if (wait >= op.id) return [`op ${wait} ${other.kind} on ${other.stream}, which is issued ${wait === op.id ? 'by itself' : 'later'}`];
  return stuck.has(wait) ? [`op ${wait} ${other.kind} on ${other.stream}, which never starts`] : [];
}
