/** Why a mutant that changes nothing may live: rules that are computed, not judged by eye. */
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import type { Access, Op, Section } from '../../src/schedule/op.js';
import { verifySchedule } from '../../src/schedule/verify.js';
import type { Candidate } from './mutations.js';

/** The reason, or undefined for a survivor that nothing explains. */
export function explainSurvivor({ ops, section }: Candidate, mutant: ExecutionPlan): string | undefined {
  const { segmentLayers } = mutant.strategy;
  const violations = verifySchedule({ ...mutant, segmentLayers, numSegments: mutant.model.numLayers / segmentLayers });
  if (violations.length === 0) return 'the mutant is legal too: every value is in place whenever it is read';
  const needless = section === undefined ? new Set<Op>() : needlessFetches(section);
  const found = ops.find((op) => needless.has(op));
  return found === undefined ? undefined : `op ${found.id} fetches what its slot holds already, so it may run at any time or not at all`;
}

/** Fetches of a value into rows that hold it: the order of turns brings the same chunk to the same slot again. */
function needlessFetches({ ops, parts }: Section): ReadonlySet<Op> {
  const needless = new Set<Op>();
  for (const { start, end } of parts) {
    const values = new Map<string, string>();
    for (const op of ops.slice(start, end)) {
      const moves = op.kind === 'fetch' || op.kind === 'offload';
      op.reads.forEach((source, i) => {
        const target = op.writes[i];
        if (!moves || target === undefined) return;
        const value = values.get(keyOf(source)) ?? keyOf(source);
        if (op.kind === 'fetch' && values.get(keyOf(target)) === value) needless.add(op);
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
  }
  return needless;
}

function keyOf({ buffer, bind, index, rows }: Access): string {
  return `${buffer}/${bind}/${index}/${rows.start}/${rows.end}`;
}

/** Rows that are overwritten, whole or in part, no longer hold what they held. */
function forget(values: Map<string, string>, { buffer, bind, index, rows }: Access): void {
  for (const key of values.keys()) {
    const [otherBuffer, otherBind, otherIndex, start, end] = key.split('/');
    const same = Number(otherBuffer) === buffer && otherBind === bind && Number(otherIndex) === index;
    if (same && Number(start) < rows.end && rows.start < Number(end)) values.delete(key);
  }
}
