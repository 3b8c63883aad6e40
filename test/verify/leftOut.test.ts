import { describe, expect, it } from 'vitest';
import { FPDT_CASE, type ParityCase } from '../../scripts/parity/cases.js';
import { planCase } from '../../scripts/parity/setting.js';
import type { ExecutionPlan } from '../../src/index.js';
import { isHidden, mayBeHidden } from '../../src/schedule/documents.js';
import type { Op, Range } from '../../src/schedule/op.js';
import { verifySchedule } from '../../src/verify/verify.js';

const ONE_RANK: ParityCase = { ...FPDT_CASE, sequenceParallelSize: 1, zeroStage: 0, packing: true };
const CASES: Readonly<Record<string, ParityCase>> = {
  ascending: { ...ONE_RANK, attentionOutput: 'disk' },
  descending: { ...ONE_RANK, backwardOrder: 'queryOuterDescending', keyValueGradients: 'host', kvTileChunks: 3 },
  windows: { ...ONE_RANK, backwardOrder: 'queryOuterDescending', keyValueGradients: 'host', kernel: 'reference', window: 20 },
};
const TOKENS_OF_CHUNK = 8;

function problems(plan: ExecutionPlan): readonly string[] {
  const { numLayers, windows, code, tieWordEmbeddings: tied } = plan.model;
  return verifySchedule({ ...plan, numLayers, windows, classOf: code.classOf, tied }).map(({ problem }) => problem);
}

function withKeys(plan: ExecutionPlan, section: string, id: number, kv: Range | undefined): ExecutionPlan {
  const changed = (op: Op): Op => (kv === undefined ? withoutKeys(op) : { ...op, kv });
  const sections = plan.sections.map((one) =>
    one.name === section ? { ...one, ops: one.ops.map((op) => (op.id === id ? changed(op) : op)) } : one,
  );
  return { ...plan, sections };
}

function withoutKeys(op: Op): Op {
  return Object.fromEntries(Object.entries(op).filter(([field]) => field !== 'kv')) as unknown as Op;
}

/** Ops that serve attention, with their sections. */
function serving(plan: ExecutionPlan): readonly (readonly [string, Op])[] {
  return plan.sections.flatMap(({ name, ops }) =>
    ops.filter(({ kind, kv }) => kv !== undefined && !kind.startsWith('attn')).map((op) => [name, op] as const),
  );
}

describe.each(Object.entries(CASES))('ops that documents leave out, %s', (_name, one) => {
  const planned = planCase(one);

  it('are merges and copies, of which none is left out that others need', async () => {
    const plan = await planned;
    const found = serving(plan);
    expect(new Set(found.map(([, { kind }]) => kind))).toContain('copy');
    expect(found.every(([, op]) => mayBeHidden(op))).toBe(true);
    expect(problems(plan)).toEqual([]);
  });

  it('are noticed where they would be left out too often', async () => {
    const plan = await planned;
    for (const [section, op] of serving(plan)) {
      const { start, end } = op.kv as Range;
      const earlier = end - TOKENS_OF_CHUNK > start ? { start, end: end - TOKENS_OF_CHUNK } : undefined;
      const cut = earlier ?? (start >= TOKENS_OF_CHUNK ? { start: start - TOKENS_OF_CHUNK, end: start } : undefined);
      if (cut === undefined) continue;
      expect(problems(withKeys(plan, section, op.id, cut)), `${section} ${op.id} ${op.kind}`).not.toEqual([]);
    }
  });

  it('are noticed where what they lose would be kept by others, or kept where it was not brought', async () => {
    const plan = await planned;
    // A copy back that always runs takes back what was not brought.
    for (const [section, op] of serving(plan)) {
      const isBack = op.kind === 'copy' && plan.buffers[op.reads[0]?.buffer ?? -1]?.pool === 'hbm';
      if (isBack) expect(problems(withKeys(plan, section, op.id, undefined)), `${section} ${op.id}`).not.toEqual([]);
    }
  });

  it('may not name keys that every document shows', async () => {
    const plan = await planned;
    const [section, op] = serving(plan)[0] ?? ['', undefined];
    const kv = { start: op?.tokens.start ?? 0, end: op?.tokens.end ?? 0 };
    expect(problems(withKeys(plan, section, op?.id ?? -1, kv))[0]).toMatch(/names keys .*, which no document hides from its queries/);
  });
});

it('a document that begins with each chunk leaves all of them out, and one document none', async () => {
  const plan = await planCase(CASES['descending'] as ParityCase);
  const starts = Array.from({ length: 8 }, (_, i) => i * TOKENS_OF_CHUNK);
  const ops = plan.sections.flatMap((section) => section.ops);
  expect(ops.filter((op) => isHidden(op, starts))).toEqual(ops.filter(mayBeHidden));
  expect(ops.filter((op) => isHidden(op, [0]))).toEqual([]);
});
