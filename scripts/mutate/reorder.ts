/** Legal reorderings of a plan: other topological orders of each part, with waits and addresses made anew. */
import { sealPlan } from '../../src/plan/encode.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { layoutBuffers } from '../../src/plan/layout.js';
import type { Op, Section, SectionName } from '../../src/schedule/op.js';
import { addWaits } from '../../src/schedule/passes/addWaits.js';
import { conflict } from './mutations.js';

/** One random order of every part that keeps each pair of ops in order whose order matters. */
export function reorderPlan(plan: ExecutionPlan, random: () => number): ExecutionPlan {
  const { digest: _digest, ...unsealed } = plan;
  const sections = Object.entries(plan.schedule).map(([name, section]) => [name, reorderSection(section, random)]);
  const schedule = Object.fromEntries(sections) as Record<SectionName, Section>;
  return sealPlan({ ...unsealed, schedule, ...layoutBuffers(plan.buffers, schedule) });
}

function reorderSection(section: Section, random: () => number): Section {
  const ops = section.parts.flatMap((part) => {
    const order = randomOrder(section.ops.slice(part.start, part.end), random);
    return addWaits(order.map((op, i) => ({ ...op, id: part.start + i })));
  });
  return { ...section, ops };
}

/** gather and release stand still: what is between them needs the weights, though no view says so. */
function randomOrder(ops: readonly Op[], random: () => number): readonly Op[] {
  const isFence = ({ kind }: Op): boolean => kind === 'gather' || kind === 'release';
  const before = ops.map((op, i) => ops.slice(0, i).filter((other) => isFence(op) || isFence(other) || conflict(other, op)));
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
