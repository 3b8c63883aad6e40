import { describe, expect, it } from 'vitest';
import type { Strategy } from '../../src/chunk/strategy.js';
import type { Buffer, Pool } from '../../src/schedule/buffer.js';
import { buildSchedule } from '../../src/schedule/build.js';
import type { Op, OpKind, Section, SectionName } from '../../src/schedule/op.js';
import { type VerifyInput, verifySchedule } from '../../src/schedule/verify.js';
import type { PolicyName } from '../../src/spec/types.js';
import { smallContext } from './context.js';

/** A plan with every buffer at addresses of its own. */
function planOf(policy: PolicyName, numChunks: number, more: Partial<Strategy> = {}): VerifyInput {
  const context = smallContext(policy, numChunks, more);
  const { schedule, buffers } = buildSchedule(context, () => 0);
  const arenas: Record<Pool, number> = { hbm: 0, host: 0 };
  const placed = buffers.map((buffer): Buffer => {
    const offset = arenas[buffer.pool];
    arenas[buffer.pool] += buffer.instances * buffer.instanceBytes;
    return { ...buffer, offset };
  });
  const { segmentLayers } = context.strategy;
  return { schedule, buffers: placed, arenas, segmentLayers, numSegments: context.model.numLayers / segmentLayers };
}

function withSection(plan: VerifyInput, name: SectionName, change: (section: Section) => Section): VerifyInput {
  return { ...plan, schedule: { ...plan.schedule, [name]: change(plan.schedule[name]) } };
}

/** Changes the first op of a kind. */
function withOp(plan: VerifyInput, name: SectionName, kind: OpKind, change: (op: Op) => Op): VerifyInput {
  return withSection(plan, name, (section) => {
    const found = section.ops.findIndex((op) => op.kind === kind);
    return { ...section, ops: section.ops.map((op, i) => (i === found ? change(op) : op)) };
  });
}

/** Removes the op but keeps its place, so that ids stay: its views become those of nothing. */
function withoutEffect(plan: VerifyInput, name: SectionName, kind: OpKind, nth = 0): VerifyInput {
  return withSection(plan, name, (section) => {
    const dropped = section.ops.filter((op) => op.kind === kind)[nth];
    const remaining = section.ops.filter((op) => op !== dropped);
    const id = (old: number): number => (old > (dropped?.id ?? 0) ? old - 1 : old);
    const renumber = (op: Op): Op => ({ ...op, id: id(op.id), waits: op.waits.filter((wait) => wait !== dropped?.id).map(id) });
    const parts = section.parts.map((part) => ({
      ...part,
      start: part.start > (dropped?.id ?? 0) ? part.start - 1 : part.start,
      end: part.end > (dropped?.id ?? 0) ? part.end - 1 : part.end,
    }));
    return { ...section, ops: remaining.map(renumber), parts };
  });
}

const CASES: readonly (readonly [PolicyName, number, Partial<Strategy>])[] = [
  ['ulysses', 1, {}],
  ['fpdt', 1, {}],
  ['fpdt', 4, {}],
  ['fpdt', 4, { segmentLayers: 2 }],
  ['auto', 1, {}],
  ['auto', 4, {}],
  ['auto', 4, { segmentLayers: 2, attentionOutput: 'host', checkpoints: 'host' }],
  ['auto', 3, { prefetchDepth: 1, attentionOutput: 'host' }],
];

describe('verifySchedule', () => {
  it.each(CASES)('%s with %i chunks and %o is legal', (policy, numChunks, more) => {
    expect(verifySchedule(planOf(policy, numChunks, more))).toEqual([]);
  });

  it('names an op of the wrong shape', () => {
    const plan = withOp(planOf('auto', 4), 'layerForward', 'attn', (op) => ({ ...op, reads: op.reads.slice(1) }));
    expect(verifySchedule(plan)[0]).toMatchObject({ section: 'layerForward', problem: 'reads 2 views, its kind 3 (q, k, v)' });
  });

  it('names a view outside its buffer', () => {
    const plan = withOp(planOf('auto', 4), 'layerForward', 'post', (op) => ({
      ...op,
      writes: op.writes.map((access) => ({ ...access, rows: { start: 4000, end: 4032 } })),
    }));
    expect(verifySchedule(plan)[0]?.problem).toMatch(/is outside the 128 rows of x/);
  });

  it('names both ops of a race when a wait is dropped', () => {
    const plan = withOp(planOf('auto', 4), 'layerForward', 'toHeads', (op) => ({ ...op, waits: [] }));
    expect(verifySchedule(plan)[0]?.problem).toMatch(/^races with op 0 pre on compute: qLocal/);
  });

  it('names an op that reads what nothing wrote', () => {
    const plan = withoutEffect(planOf('auto', 4), 'layerForward', 'pre');
    expect(verifySchedule(plan).map(({ problem }) => problem)).toContainEqual(expect.stringMatching(/which nothing has written/));
  });

  it('names the buffer that overwrote a value still needed', () => {
    const plan = planOf('auto', 4);
    const target = plan.buffers.find((buffer) => buffer.name === 'q') as Buffer;
    const buffers = plan.buffers.map((buffer) => (buffer.name === 'k' ? { ...buffer, offset: target.offset } : buffer));
    expect(verifySchedule({ ...plan, buffers })[0]?.problem).toMatch(/overwritten through|races with/);
  });

  it('names a copy that goes the wrong way', () => {
    const plan = withOp(planOf('fpdt', 4), 'layerForward', 'fetch', (op) => ({ ...op, reads: op.writes, writes: op.reads }));
    expect(verifySchedule(plan)[0]?.problem).toMatch(/where fetch may not touch it/);
  });

  it('names a wait for a later op', () => {
    const plan = withOp(planOf('auto', 4), 'layerForward', 'toHeads', (op) => ({ ...op, waits: [op.id + 1] }));
    expect(verifySchedule(plan)[0]?.problem).toMatch(/which is not an earlier op of its part/);
  });

  it('finds every dropped wait that the schedule needs', () => {
    for (const [policy, numChunks, more] of CASES) {
      const plan = planOf(policy, numChunks, more);
      for (const name of ['layerForward', 'layerBackward'] as const) {
        for (const op of plan.schedule[name].ops.filter(({ waits }) => waits.length > 0)) {
          const weakened = withSection(plan, name, (section) => ({
            ...section,
            ops: section.ops.map((other) => (other === op ? { ...op, waits: [] } : other)),
          }));
          expect(verifySchedule(weakened), `${policy}/${numChunks} ${name} op ${op.id}`).not.toEqual([]);
        }
      }
    }
  });
});
