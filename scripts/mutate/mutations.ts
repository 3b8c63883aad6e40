/** Ways to break a plan. Each gives mutants of a legal plan, described in words; none asks the verifier. */
import { bufferBytes } from '../../src/address/bytes.js';
import { OP_ROWS } from '../../src/catalog/ops/index.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Mask, Op, Range, Section } from '../../src/schedule/op.js';
import { callMutants } from './callMutations.js';
import { type Candidate, type Operator, seal } from './candidate.js';
import { opToText } from '../../src/schedule/text.js';

export function allMutants(plan: ExecutionPlan): readonly Candidate[] {
  return [...plan.sections.flatMap((section) => sectionMutants(plan, section)), ...callMutants(plan), ...overlaps(plan)];
}

function sectionMutants(plan: ExecutionPlan, section: Section): readonly Candidate[] {
  const describe = (op: Op, suffix = ''): string => `${section.name}: ${opToText(op, section, plan)}${suffix}`;
  const withOp = (changed: Op): ExecutionPlan =>
    withSection(plan, { ...section, ops: section.ops.map((op) => (op.id === changed.id ? changed : op)) });
  const mutant = (operator: Operator, op: Op, suffix: string, build: () => ExecutionPlan, others: readonly Op[] = []): Candidate => ({
    operator,
    what: describe(op, suffix),
    section,
    ops: [op, ...others],
    build,
  });
  return section.ops
    .filter((op) => !OP_ROWS[op.kind].external)
    .flatMap((op): readonly Candidate[] => {
      const next = section.ops[op.id + 1];
      return [
        mutant('dropOp', op, '', () => withSection(plan, dropOp(section, op))),
        ...(next !== undefined && !OP_ROWS[next.kind].external && conflict(op, next)
          ? [mutant('swapOps', op, ` after ${next.kind}`, () => withSection(plan, swap(section, op, next)), [next])]
          : []),
        ...op.waits.map((wait) =>
          mutant(
            'dropWait',
            op,
            ` without waiting for op ${wait}`,
            () => withOp({ ...op, waits: op.waits.filter((other) => other !== wait) }),
            [section.ops[wait] as Op],
          ),
        ),
        ...shifts(op).map((kv) => mutant('shiftKv', op, ` over [${kv.start}:${kv.end})`, () => withOp({ ...op, kv }))),
        ...otherMasks(op, plan).map((mask) => mutant('changeMask', op, ` as ${mask.kind}`, () => withMask(plan, section, op, mask))),
      ];
    });
}

/** Same buffer, overlapping rows, one of them changes it: the order matters. */
export function conflict(a: Op, b: Op): boolean {
  const changes = (op: Op) => [...op.writes, ...op.accumulates];
  const all = (op: Op) => [...op.reads, ...changes(op)];
  const meet = (x: Op['reads'], y: Op['reads']): boolean =>
    x.some((one) =>
      y.some(
        (two) =>
          one.buffer === two.buffer &&
          one.param === two.param &&
          one.index === two.index &&
          one.rows.start < two.rows.end &&
          two.rows.start < one.rows.end,
      ),
    );
  return meet(changes(a), all(b)) || meet(all(a), changes(b));
}

function dropOp(section: Section, dropped: Op): Section {
  const id = (old: number): number => (old > dropped.id ? old - 1 : old);
  const ops = section.ops.filter((op) => op !== dropped).map((op) => ({ ...op, id: id(op.id), waits: inherit(op.waits, dropped).map(id) }));
  return { ...section, ops };
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

/** A range on the diagonal moves into the past; one in the past moves onto the diagonal. */
function shifts({ kv, tokens }: Op): readonly Range[] {
  if (kv === undefined) return [];
  const length = kv.end - kv.start;
  const end = kv.end > tokens.start ? tokens.start : tokens.end;
  return end < length ? [{ start: 0, end: Math.max(1, end) }] : [{ start: end - length, end }];
}

/** `full` where a mask is needed, and a mask where all keys are seen. */
function otherMasks({ attribute, kv }: Op, { attributes }: ExecutionPlan): readonly Mask[] {
  const mask = attribute === undefined ? undefined : attributes[attribute]?.mask;
  if (mask === undefined || kv === undefined) return [];
  return mask.kind === 'full' ? [{ kind: 'window', window: Math.max(1, kv.end - kv.start - 1) }] : [{ kind: 'full' }];
}

function withMask(plan: ExecutionPlan, section: Section, op: Op, mask: Mask): ExecutionPlan {
  const attribute = plan.attributes.length;
  const changed = { ...section, ops: section.ops.map((one) => (one === op ? { ...op, attribute } : one)) };
  const sections = plan.sections.map((one) => (one.name === section.name ? changed : one));
  return seal(plan, { attributes: [...plan.attributes, { mask }], sections });
}

function overlaps(plan: ExecutionPlan): readonly Candidate[] {
  return plan.buffers.flatMap((buffer, i) => {
    const other = plan.buffers.slice(i + 1).find((later) => later.pool === buffer.pool && aliveTogether(plan, buffer, later));
    if (other === undefined) return [];
    const arena = plan.pools.find(({ name }) => name === buffer.pool)?.bytes ?? 0;
    const offset = Math.min(other.offset, arena - bufferBytes(buffer));
    const build = (): ExecutionPlan => seal(plan, { buffers: plan.buffers.map((one) => (one === buffer ? { ...one, offset } : one)) });
    return offset === buffer.offset
      ? []
      : [{ operator: 'overlapBuffers' as const, what: `${buffer.name} moved onto ${other.name}`, ops: [], build }];
  });
}

/** An op that uses both: their values are needed at the same time. */
function aliveTogether(plan: ExecutionPlan, a: Buffer, b: Buffer): boolean {
  return plan.sections.some(({ ops }) =>
    ops.some((op) => {
      const used = new Set([...op.reads, ...op.writes, ...op.accumulates].map(({ buffer }) => buffer));
      return used.has(a.id) && used.has(b.id);
    }),
  );
}

function withSection(plan: ExecutionPlan, section: Section): ExecutionPlan {
  return seal(plan, { sections: plan.sections.map((one) => (one.name === section.name ? section : one)) });
}
