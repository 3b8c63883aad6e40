/** Real runs of small plans on 2 gloo ranks, all from one Python process: what `npm run mutate` and `npm run parity` show at length. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Candidate, allMutants } from '../../scripts/mutate/mutations.js';
import { reorderPlan } from '../../scripts/mutate/reorder.js';
import { type ParityCase, randomNumbers } from '../../scripts/parity/cases.js';
import { Harness, type JobResult } from '../../scripts/parity/harness.js';
import { planCase, smallDeepSpeed, smallModel, writeTokens } from '../../scripts/parity/setting.js';
import { type ExecutionPlan, planRun, writePlanFile } from '../../src/index.js';
import { sealPlan } from '../../src/plan/encode.js';
import { layoutBuffers } from '../../src/plan/layout.js';
import { verifySchedule } from '../../src/schedule/verify.js';
import type { ParameterTable } from '../../src/spec/types.js';

const CASE: ParityCase = {
  sequenceParallelSize: 2,
  zeroStage: 3,
  policy: 'fpdt',
  numChunks: 4,
  segmentLayers: 1,
  heads: 'gqa',
  tied: false,
  gradientAccumulationSteps: 1,
  dataParallelSize: 1,
  lossScale: 1,
};
/** Orders of asynchronous ops that a mutant runs in, until one tells it from the plan. */
const ORDERS = [
  { copy_mode: 'lazy', seed: 0 },
  { copy_mode: 'random', seed: 1 },
  { copy_mode: 'random', seed: 2 },
  { copy_mode: 'eager', seed: 0 },
] as const;
type Order = (typeof ORDERS)[number];

let harness: Harness;
let folder: string;
let data: string;
let fpdt: ExecutionPlan;
let baseline: JobResult;
let numRuns = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fpdt-session-'));
  data = await writeTokens(folder);
  harness = Harness.start();
  fpdt = await planCase(CASE);
  baseline = await execute(fpdt, { dumpGrads: join(folder, 'baseline') });
  expect(baseline.failed, baseline.traceback).toBeUndefined();
});

afterAll(async () => {
  await harness.stop();
  await rm(folder, { recursive: true, force: true });
});

async function execute(plan: ExecutionPlan, more: Readonly<Record<string, unknown>> = {}): Promise<JobResult> {
  const path = join(folder, `plan-${numRuns++}.json`);
  await writePlanFile(plan, path);
  return await harness.run({ kind: 'worker', plan: path, data, steps: 1, worldSize: plan.cluster.numRanks, timeout: 60, ...more });
}

/** Undefined when loss and every gradient have the same bits as the baseline's. */
async function difference(plan: ExecutionPlan, order: Order): Promise<string | undefined> {
  const dumpGrads = join(folder, `run-${numRuns}`);
  const ran = await execute(plan, { dumpGrads, options: order, timeout: 20 });
  if (ran.failed !== undefined) return `refused: ${ran.failed}`;
  const compared = await harness.run({ kind: 'compare', left: dumpGrads, right: join(folder, 'baseline') });
  if (compared.failed !== undefined) return compared.failed;
  const isSame = compared.error === 0 && ran.losses?.[0] === baseline.losses?.[0];
  return isSame ? undefined : `${compared.error} in ${compared.where}, loss ${ran.losses?.[0]}`;
}

function resealed(plan: ExecutionPlan, changes: Partial<ExecutionPlan>): ExecutionPlan {
  const { digest: _digest, ...unsealed } = { ...plan, ...changes };
  return sealPlan(unsealed);
}

describe('gradients have the same bits', { timeout: 120_000 }, () => {
  it.each(ORDERS.slice(0, 2))('with copies and exchanges $copy_mode instead of eager', async (order) => {
    expect(await difference(fpdt, order)).toBeUndefined();
  });

  it('in another legal order of ops', async () => {
    const reordered = reorderPlan(fpdt, randomNumbers(3));
    const kinds = ({ schedule }: ExecutionPlan): string[] => schedule.layerBackward.ops.map(({ kind }) => kind);
    expect(kinds(reordered)).not.toEqual(kinds(fpdt));
    expect(await difference(reordered, ORDERS[1])).toBeUndefined();
  });

  it('at other legal addresses', async () => {
    const moved = resealed(fpdt, layoutBuffers(fpdt.buffers, fpdt.schedule, { seed: 5 }));
    expect(moved.buffers.map(({ offset }) => offset)).not.toEqual(fpdt.buffers.map(({ offset }) => offset));
    expect(await difference(moved, ORDERS[0])).toBeUndefined();
  });
});

describe('a mutant changes gradients or is refused', { timeout: 120_000 }, () => {
  /** The first mutant that the verifier, which is not in the way here, calls wrong. */
  const illegal = (operator: Candidate['operator'], what: RegExp): ExecutionPlan => {
    const candidates = allMutants(fpdt).filter((one) => one.operator === operator && what.test(one.what));
    for (const { build } of candidates) {
      const mutant = build();
      if (operator === 'shiftKv' || !isLegal(mutant)) return mutant;
    }
    throw new Error(`${candidates.length} mutants ${operator} and none is illegal`);
  };
  const isLegal = (plan: ExecutionPlan): boolean => {
    const { segmentLayers } = plan.strategy;
    return verifySchedule({ ...plan, segmentLayers, numSegments: plan.model.numLayers / segmentLayers }).length === 0;
  };

  it.each([
    ['dropOp', /layerBackward: \d+ attnBwd /],
    ['swapOps', /layerForward: \d+ fetch /],
    ['dropWait', /layerForward: \d+ attn /],
    ['overlapBuffers', /^k\.staged moved/],
    ['shiftKv', /layerForward: \d+ attn /],
  ] as const)('%s', async (operator, what) => {
    const mutant = illegal(operator, what);
    const found: string[] = [];
    for (const order of ORDERS) {
      const different = await difference(mutant, order);
      if (different !== undefined) found.push(different);
      if (found.length > 0) break;
    }
    expect(found).toHaveLength(1);
  });
});

describe('bytes copied, counted by the device, are those of the plan', { timeout: 120_000 }, () => {
  const copied = async (plan: ExecutionPlan) => {
    const { steps, failed } = await execute(plan);
    expect(failed).toBeUndefined();
    return steps?.[0]?.copied_bytes;
  };

  it('fpdt', () => {
    expect(baseline.steps?.[0]?.copied_bytes).toEqual(fpdt.prediction.copiedBytes);
    expect(fpdt.prediction.copiedBytes.h2d).toBeGreaterThan(fpdt.prediction.copiedBytes.d2h);
    expect(fpdt.prediction.copiedBytes.d2h).toBeGreaterThan(0);
  });

  it('ulysses and auto with all resident: none', async () => {
    for (const changes of [{ policy: 'ulysses', numChunks: 1 }, { policy: 'auto' }] as const) {
      const plan = await planCase({ ...CASE, ...changes });
      expect(plan.prediction.copiedBytes).toEqual({ h2d: 0, d2h: 0 });
      expect(await copied(plan)).toEqual({ h2d: 0, d2h: 0 });
    }
  });

  it('auto with checkpoints on the host', async () => {
    const resident = await planCase({ ...CASE, policy: 'auto' });
    const plan = await planRun({
      model: smallModel('gqa', false),
      cluster: { gpus: 2, gpu: 'cpu', hbmBytes: resident.memory.hbm.peakBytes - 1 },
      deepspeed: smallDeepSpeed(3, 1),
      run: { seqLen: resident.run.seqLen, sequenceParallelSize: 2, policy: 'auto', numChunks: CASE.numChunks },
    });
    expect(plan.strategy).toMatchObject({ keyValues: 'hbm', checkpoints: 'host' });
    expect(plan.prediction.copiedBytes.h2d).toBeGreaterThan(0);
    expect(await copied(plan)).toEqual(plan.prediction.copiedBytes);
  });
});

describe('a worker refuses parameters that are not its model’s', { timeout: 120_000 }, () => {
  const refusal = async (change: (table: ParameterTable) => Partial<ParameterTable>): Promise<string | undefined> =>
    (await execute(resealed(fpdt, { parameters: { ...fpdt.parameters, ...change(fpdt.parameters) } }))).failed;

  it.each<readonly [string, (table: ParameterTable) => Partial<ParameterTable>, string]>([
    ['another shape', ({ layer }) => ({ layer: layer.map((row) => ({ ...row, shape: row.shape.toReversed() })) }), 'the plan says'],
    ['a weight the model lacks', ({ head }) => ({ head: head.map((row) => ({ ...row, name: `${row.name}s` })) }), 'that the module lacks'],
    ['a weight the plan lacks', ({ layer }) => ({ layer: layer.slice(0, -1) }), 'the model trains 4 weights that the plan lacks'],
    ['another count', ({ numModelParameters }) => ({ numModelParameters: numModelParameters + 1 }), 'parameters, the plan says'],
  ])('%s', async (_name, change, message) => {
    const failed = await refusal(change);
    expect(failed).toMatch(/^ParameterError: /);
    expect(failed).toContain(message);
  });
});

describe('a sleep of 50 ms in one handler', { timeout: 120_000 }, () => {
  const SLEEP = 0.05;

  it('shows under its kind only, and op time + idle is the step', async () => {
    const plan = await planCase({ ...CASE, policy: 'auto', sequenceParallelSize: 1 });
    const [plain, slow] = [await execute(plan), await execute(plan, { environment: { FPDT_FAULT: `sleep:post:${SLEEP}` } })];
    expect([plain.failed, slow.failed]).toEqual([undefined, undefined]);
    const [before, after] = [plain.steps?.[0], slow.steps?.[0]];
    if (before === undefined || after === undefined) throw new Error('a run without a step');
    const count = after.by_kind['post']?.count ?? 0;
    expect(count).toBe(plan.prediction.byKind.post?.count);
    const growth = Object.entries(after.by_kind).map(
      ([kind, { seconds }]) => [kind, seconds - (before.by_kind[kind]?.seconds ?? 0)] as const,
    );
    const slept = SLEEP * count;
    expect(growth.filter(([, seconds]) => seconds > slept / 2).map(([kind]) => kind)).toEqual(['post']);
    expect(after.by_kind['post']?.seconds).toBeGreaterThanOrEqual(slept);
    expect(after.idle_seconds - before.idle_seconds).toBeLessThan(slept / 2);
    for (const step of [before, after]) {
      const ops = Object.values(step.by_kind).reduce((sum, { seconds }) => sum + seconds, 0);
      expect(Math.abs((ops + step.idle_seconds) / step.seconds - 1)).toBeLessThan(0.05);
    }
  });
});
