/** Ways to break a plan. Each gives mutants of a legal plan, described in words; none asks the verifier. */
import { sealPlan } from '../../src/plan/encode.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import type { Buffer } from '../../src/schedule/buffer.js';
import { OP_KINDS, type Op, type Range, type Section, type SectionName } from '../../src/schedule/op.js';
import { opToText } from '../../src/schedule/text.js';

export const OPERATORS = ['dropOp', 'swapOps', 'dropWait', 'overlapBuffers', 'shiftKv'] as const;
export type Operator = (typeof OPERATORS)[number];

/** A mutant before it is built: plans are large, and only a sample is run. */
export interface Candidate {
  readonly operator: Operator;
  readonly what: string;
  /** The ops of the legal plan that are dropped, swapped, or no longer ordered. */
  readonly ops: readonly Op[];
  readonly section?: Section;
  readonly build: () => ExecutionPlan;
}

export function allMutants(plan: ExecutionPlan): readonly Candidate[] {
  return [...Object.values(plan.schedule).flatMap((section) => sectionMutants(plan, section)), ...overlaps(plan)];
}

function sectionMutants(plan: ExecutionPlan, section: Section): readonly Candidate[] {
  const describe = (op: Op, suffix = ''): string => `${section.name}: ${opToText(op, plan.buffers)}${suffix}`;
  const withOp = (changed: Op): ExecutionPlan =>
    withSection(plan, { ...section, ops: section.ops.map((op) => (op.id === changed.id ? changed : op)) });
  return section.ops
    .filter((op) => !OP_KINDS[op.kind].external)
    .flatMap((op): readonly Candidate[] => {
      const next = section.ops[op.id + 1];
      return [
        { operator: 'dropOp', what: describe(op), section, ops: [op], build: () => withSection(plan, dropOp(section, op)) },
        ...(next !== undefined && canSwap(section, op, next)
          ? [
              {
                operator: 'swapOps',
                what: describe(op, ` after ${next.kind}`),
                section,
                ops: [op, next],
                build: () => withSection(plan, swap(section, op, next)),
              } as const,
            ]
          : []),
        ...op.waits.map(
          (wait): Candidate => ({
            operator: 'dropWait',
            what: describe(op, ` without waiting for op ${wait}`),
            section,
            ops: [op, section.ops[wait] as Op],
            build: () => withOp({ ...op, waits: op.waits.filter((other) => other !== wait) }),
          }),
        ),
        ...shifts(op).map(
          (kv): Candidate => ({
            operator: 'shiftKv',
            what: describe(op, ` over [${kv.start}:${kv.end})`),
            section,
            ops: [op],
            build: () => withOp({ ...op, kv }),
          }),
        ),
      ];
    });
}

/** Neighbours of one part whose order matters. */
function canSwap(section: Section, op: Op, next: Op): boolean {
  return !OP_KINDS[next.kind].external && partOf(section, op) === partOf(section, next) && conflict(op, next);
}

function partOf({ parts }: Section, { id }: Op): number {
  return parts.findIndex(({ start, end }) => start <= id && id < end);
}

/** Same buffer, overlapping rows, one of them changes it: the order matters. */
export function conflict(a: Op, b: Op): boolean {
  const changes = (op: Op) => [...op.writes, ...op.accumulates];
  const all = (op: Op) => [...op.reads, ...changes(op)];
  const meet = (x: Op['reads'], y: Op['reads']): boolean =>
    x.some((one) => y.some((two) => one.buffer === two.buffer && one.rows.start < two.rows.end && two.rows.start < one.rows.end));
  return meet(changes(a), all(b)) || meet(all(a), changes(b));
}

function dropOp(section: Section, dropped: Op): Section {
  const id = (old: number): number => (old > dropped.id ? old - 1 : old);
  const ops = section.ops.filter((op) => op !== dropped).map((op) => ({ ...op, id: id(op.id), waits: inherit(op.waits, dropped).map(id) }));
  const parts = section.parts.map(({ layerSlot, start, end }) => ({ layerSlot, start: id(start), end: end > dropped.id ? end - 1 : end }));
  return { ...section, ops, parts };
}

/** Who waited for the dropped op waits for what it waited for: only the op is missing, not the order of the rest. */
function inherit(waits: readonly number[], dropped: Op): readonly number[] {
  return waits.includes(dropped.id)
    ? [...new Set([...waits, ...dropped.waits])].filter((wait) => wait !== dropped.id).sort((a, b) => a - b)
    : waits;
}

function swap(section: Section, first: Op, second: Op): Section {
  const id = (old: number): number => (old === first.id ? second.id : old === second.id ? first.id : old);
  const ops = [...section.ops];
  ops[first.id] = { ...second, id: first.id, waits: second.waits.filter((wait) => wait !== first.id) };
  ops[second.id] = { ...first, id: second.id };
  return { ...section, ops: ops.map((op, i) => (i > second.id ? { ...op, waits: op.waits.map(id).sort((a, b) => a - b) } : op)) };
}

/** A range on the diagonal moves into the past and loses its mask; one in the past moves onto the diagonal and gets one. */
function shifts({ kv, tokens }: Op): readonly Range[] {
  if (kv === undefined) return [];
  const length = kv.end - kv.start;
  const end = kv.end > tokens.start ? tokens.start : tokens.end;
  return end < length ? [{ start: 0, end: Math.max(1, end) }] : [{ start: end - length, end }];
}

function overlaps(plan: ExecutionPlan): readonly Candidate[] {
  return plan.buffers.flatMap((buffer, i) => {
    const other = plan.buffers.slice(i + 1).find((later) => later.pool === buffer.pool && aliveTogether(plan, buffer, later));
    if (other === undefined) return [];
    const bytes = buffer.instances * buffer.instanceBytes;
    const offset = Math.min(other.offset, plan.arenas[buffer.pool] - bytes);
    const build = (): ExecutionPlan => seal(plan, { buffers: plan.buffers.map((one) => (one === buffer ? { ...one, offset } : one)) });
    return offset === buffer.offset
      ? []
      : [{ operator: 'overlapBuffers' as const, what: `${buffer.name} moved onto ${other.name}`, ops: [], build }];
  });
}

/** An op that uses both: their values are needed at the same time. */
function aliveTogether(plan: ExecutionPlan, a: Buffer, b: Buffer): boolean {
  return Object.values(plan.schedule).some(({ ops }) =>
    ops.some((op) => {
      const used = new Set([...op.reads, ...op.writes, ...op.accumulates].map(({ buffer }) => buffer));
      return used.has(a.id) && used.has(b.id);
    }),
  );
}

function withSection(plan: ExecutionPlan, section: Section): ExecutionPlan {
  return seal(plan, { schedule: { ...plan.schedule, [section.name as SectionName]: section } });
}

function seal(plan: ExecutionPlan, changes: Partial<ExecutionPlan>): ExecutionPlan {
  const { digest: _digest, ...unsealed } = { ...plan, ...changes };
  return sealPlan(unsealed);
}
