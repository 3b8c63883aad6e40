/** Why a mutant that changes nothing may live: rules that are computed, not judged by eye. */
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import type { Access, Op, Section } from '../../src/schedule/op.js';
import { verifySchedule } from '../../src/verify/verify.js';
import type { Candidate } from './candidate.js';

/** The reason, or undefined for a survivor that nothing explains. */
export function explainSurvivor({ ops, section }: Candidate, mutant: ExecutionPlan): string | undefined {
  if (isLegal(mutant, false)) return 'the mutant is legal too: every value is in place whenever it is read';
  if (isLegal(mutant, true)) return 'the mutant is legal where compute is complete at the end of every turn, as on the CPU device';
  const needless = section === undefined ? new Set<Op>() : needlessCopies(section);
  const found = ops.find((op) => needless.has(op));
  return found === undefined ? undefined : `op ${found.id} copies what its target holds already, so it may run at any time or not at all`;
}

function isLegal(mutant: ExecutionPlan, joinsCompute: boolean): boolean {
  const { model, parameters } = mutant;
  const { numLayers, windows, code, tieWordEmbeddings: tied } = model;
  return verifySchedule({ ...mutant, numLayers, windows, parameters, classOf: code.classOf, tied, joinsCompute }).length === 0;
}

/** Copies of values into rows that hold them: the order of turns brings the same chunk to the same slot again. */
function needlessCopies({ ops }: Section): ReadonlySet<Op> {
  const needless = new Set<Op>();
  const values = new Map<string, string>();
  for (const op of ops) {
    if (op.kind !== 'copy') {
      for (const view of [...op.writes, ...op.accumulates])
        for (const row of rowsOf(view)) values.set(row, `made by op ${op.id} in ${row}`);
      continue;
    }
    const moved = op.reads.flatMap((source, i) => {
      const targets = rowsOf(op.writes[i]);
      return rowsOf(source).map((row, number) => ({ value: values.get(row) ?? row, target: targets[number] ?? '' }));
    });
    if (moved.every(({ value, target }) => values.get(target) === value)) needless.add(op);
    for (const { value, target } of moved) values.set(target, value);
  }
  return needless;
}

/** A name for each row of an instance. */
function rowsOf(view: Access | undefined): readonly string[] {
  if (view === undefined) return [];
  const { buffer, param, index, rows } = view;
  return Array.from({ length: rows.end - rows.start }, (_, i) => `${buffer}/${param}/${index}/${rows.start + i}`);
}
