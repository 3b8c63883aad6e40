/** Why a mutant that changes nothing may live: rules that are computed, not judged by eye. */
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import type { Access, Op, Section } from '../../src/schedule/op.js';
import { verifySchedule } from '../../src/verify/verify.js';
import type { Candidate } from './candidate.js';

/** The reason, or undefined for a survivor that nothing explains. */
export function explainSurvivor({ ops, section }: Candidate, mutant: ExecutionPlan): string | undefined {
  const { model, parameters } = mutant;
  const violations = verifySchedule({
    ...mutant,
    numLayers: model.numLayers,
    windows: model.windows,
    parameters,
    tied: model.tieWordEmbeddings,
  });
  if (violations.length === 0) return 'the mutant is legal too: every value is in place whenever it is read';
  const needless = section === undefined ? new Set<Op>() : needlessCopies(section);
  const found = ops.find((op) => needless.has(op));
  return found === undefined ? undefined : `op ${found.id} copies what its target holds already, so it may run at any time or not at all`;
}

/** Copies of a value into rows that hold it: the order of turns brings the same chunk to the same slot again. */
function needlessCopies({ ops }: Section): ReadonlySet<Op> {
  const needless = new Set<Op>();
  const values = new Map<string, string>();
  for (const op of ops) {
    const moves = op.kind === 'copy';
    op.reads.forEach((source, i) => {
      const target = op.writes[i];
      if (!moves || target === undefined) return;
      const value = values.get(keyOf(source)) ?? keyOf(source);
      if (values.get(keyOf(target)) === value) needless.add(op);
      forget(values, target);
      values.set(keyOf(target), value);
      values.set(keyOf(source), value);
    });
    if (moves) continue;
    for (const view of [...op.writes, ...op.accumulates]) {
      forget(values, view);
      values.set(keyOf(view), `made by op ${op.id} in ${keyOf(view)}`);
    }
  }
  return needless;
}

function keyOf({ buffer, param, index, rows }: Access): string {
  return `${buffer}/${param}/${index}/${rows.start}/${rows.end}`;
}

/** Rows that are overwritten, whole or in part, no longer hold what they held. */
function forget(values: Map<string, string>, { buffer, param, index, rows }: Access): void {
  for (const key of values.keys()) {
    const [otherBuffer, otherParam, otherIndex, start, end] = key.split('/').map(Number);
    const same = otherBuffer === buffer && otherParam === param && otherIndex === index;
    if (same && (start ?? 0) < rows.end && rows.start < (end ?? 0)) values.delete(key);
  }
}
