/** Legal reorderings of a plan: other topological orders of each section, with waits, addresses and entry masks made anew. */
import { layoutSchedule } from '../../src/address/layout.js';
import { sealPlan } from '../../src/plan/encode.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import type { Op, Section } from '../../src/schedule/op.js';
import { addWaits } from '../../src/schedule/passes/addWaits.js';
import { conflict } from './mutations.js';

/** One random order of every section that keeps each pair of ops in order whose order matters. */
export function reorderPlan(plan: ExecutionPlan, random: () => number): ExecutionPlan {
  const sections = plan.sections.map((section): Section => {
    const order = randomOrder(section.ops, random);
    return { ...section, ops: addWaits(order.map((op, id) => ({ ...op, id }))) };
  });
  return sealPlan({ ...plan, ...layoutSchedule({ ...plan, sections }) });
}

function randomOrder(ops: readonly Op[], random: () => number): readonly Op[] {
  const before = ops.map((op, i) => ops.slice(0, i).filter((other) => conflict(other, op)));
  const done = new Set<Op>();
  const order: Op[] = [];
  while (order.length < ops.length) {
    const ready = ops.filter((op, i) => !done.has(op) && before[i]?.every((other) => done.has(other)) === true);
    const next = ready[Math.floor(random() * ready.length)] as Op;
    done.add(next);
    order.push(next);
  }
  return order;
}
