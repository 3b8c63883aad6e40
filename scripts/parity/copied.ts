/** Bytes that a step copies, stream by stream, op by op: all of the plan's, but for copies that documents leave out. */
import { viewBytes } from '../../src/catalog/ops/index.js';
import type { ExecutionPlan } from '../../src/index.js';
import { isHidden } from '../../src/schedule/documents.js';

/** `documents`: where they begin, by micro-step; none: the plan's own number, of sequences that are one document. */
export function copiedBytes(plan: ExecutionPlan, documents: readonly (readonly number[])[]): Readonly<Record<string, number>> {
  if (documents.length === 0) return plan.prediction.copiedBytes;
  const sections = new Map(plan.sections.map((section) => [section.name, section]));
  const bytes: Record<string, number> = Object.fromEntries(Object.keys(plan.prediction.copiedBytes).map((stream) => [stream, 0]));
  const calls = plan.programs.train.turns.flatMap((turn) => turn.calls);
  for (const starts of documents) {
    for (const { section } of calls) {
      for (const op of sections.get(section)?.ops ?? []) {
        if (op.kind === 'copy' && !isHidden(op, starts)) bytes[op.stream] = (bytes[op.stream] ?? 0) + viewBytes(op.writes, plan.buffers);
      }
    }
  }
  return bytes;
}
