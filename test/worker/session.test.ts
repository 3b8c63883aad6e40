/** Real runs of small plans under ZeRO-3, all from one Python process: copies, orders, refusals and times of the worker. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ParityCase } from '../../scripts/parity/cases.js';
import { Harness, type JobResult, type StepResult } from '../../scripts/parity/harness.js';
import { planCase, smallDeepSpeed, smallModel, writeTokens } from '../../scripts/parity/setting.js';
import { type ExecutionPlan, planRun, writePlanFile } from '../../src/index.js';
import { sealPlan } from '../../src/plan/encode.js';
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
  return await harness.run({ kind: 'worker', plan: path, data, steps: 1, worldSize: plan.cluster.numRanks, ...more });
}

async function oneStep(plan: ExecutionPlan, more: Readonly<Record<string, unknown>> = {}): Promise<StepResult> {
  const { steps, failed, traceback } = await execute(plan, { options: { poison: false }, ...more });
  expect(failed, traceback).toBeUndefined();
  if (steps?.[0] === undefined) throw new Error('a run without a step');
  return steps[0];
}

describe('gradients have the same bits', { timeout: 120_000 }, () => {
  it.each(['lazy', 'random'])('with copies and exchanges %s instead of eager', async (copyMode) => {
    const dumpGrads = join(folder, copyMode);
    const ran = await execute(fpdt, { dumpGrads, options: { copy_mode: copyMode, seed: 1 } });
    expect(ran).toMatchObject({ losses: baseline.losses });
    expect(await harness.run({ kind: 'compare', left: dumpGrads, right: join(folder, 'baseline') })).toMatchObject({ error: 0 });
  });
});

describe('bytes copied, counted by the device, are those of the plan', { timeout: 120_000 }, () => {
  it('fpdt', () => {
    const { copiedBytes } = fpdt.prediction;
    expect(baseline.steps?.[0]?.copied_bytes).toEqual(copiedBytes);
    expect(copiedBytes.h2d).toBeGreaterThan(copiedBytes.d2h);
    expect(copiedBytes.d2h).toBeGreaterThan(0);
  });

  it.each([
    ['ulysses', 1],
    ['auto', 4],
  ] as const)('%s with all resident: none', async (policy, numChunks) => {
    const plan = await planCase({ ...CASE, policy, numChunks, sequenceParallelSize: 1 });
    expect(plan.prediction.copiedBytes).toEqual({ h2d: 0, d2h: 0 });
    expect((await oneStep(plan)).copied_bytes).toEqual({ h2d: 0, d2h: 0 });
  });

  it('auto with checkpoints on the host', async () => {
    const resident = await planCase({ ...CASE, policy: 'auto', sequenceParallelSize: 1 });
    const plan = await planRun({
      model: smallModel('gqa', false),
      cluster: { gpus: 1, gpu: 'cpu', hbmBytes: resident.memory.hbm.peakBytes - 1 },
      deepspeed: smallDeepSpeed(3, 1),
      run: { seqLen: resident.run.seqLen, policy: 'auto', numChunks: CASE.numChunks },
    });
    expect(plan.strategy).toMatchObject({ keyValues: 'hbm', checkpoints: 'host' });
    expect(plan.prediction.copiedBytes.h2d).toBeGreaterThan(0);
    expect((await oneStep(plan)).copied_bytes).toEqual(plan.prediction.copiedBytes);
  });
});

describe('a worker refuses a table of parameters that is not its model’s', { timeout: 120_000 }, () => {
  it.each<readonly [string, (table: ParameterTable) => Partial<ParameterTable>, string]>([
    ['another shape', ({ layer }) => ({ layer: layer.map((row) => ({ ...row, shape: [...row.shape, 1] })) }), 'the plan says ('],
    ['a weight the model lacks', ({ head }) => ({ head: head.map((row) => ({ ...row, name: `${row.name}s` })) }), 'that the module lacks'],
    ['a weight the plan lacks', ({ layer }) => ({ layer: layer.slice(0, -1) }), 'the model trains 4 weights that the plan lacks'],
    ['another count', ({ numModelParameters }) => ({ numModelParameters: numModelParameters + 1 }), 'parameters, the plan says'],
  ])('%s', async (_name, change, message) => {
    const { digest: _digest, ...unsealed } = fpdt;
    const { failed } = await execute(sealPlan({ ...unsealed, parameters: { ...fpdt.run.parameters, ...change(fpdt.run.parameters) } }));
    expect(failed).toMatch(/^ParameterError: /);
    expect(failed).toContain(message);
  });
});

describe('a sleep of 50 ms in one handler', { timeout: 120_000 }, () => {
  const SLEEP_SECONDS = 0.05;

  it('shows under its kind only, and op time + idle is the step', async () => {
    const plan = await planCase({ ...CASE, policy: 'auto', sequenceParallelSize: 1 });
    const before = await oneStep(plan);
    const after = await oneStep(plan, { environment: { FPDT_FAULT: `sleep:post:${SLEEP_SECONDS}` } });
    const count = plan.prediction.byKind.post?.count ?? 0;
    const slept = SLEEP_SECONDS * count;
    expect([before.by_kind['post']?.count, after.by_kind['post']?.count]).toEqual([count, count]);
    expect(slept).toBeGreaterThan(0.5);
    const seconds = ({ by_kind }: StepResult, kind: string): number => by_kind[kind]?.seconds ?? 0;
    expect(seconds(after, 'post')).toBeGreaterThanOrEqual(slept);
    // What else the machine does may slow down any kind a little, but none by anything like it.
    const grown = Object.keys(after.by_kind).filter((kind) => seconds(after, kind) - seconds(before, kind) > slept / 2);
    expect(grown).toEqual(['post']);
    expect(after.idle_seconds - before.idle_seconds).toBeLessThan(slept / 2);
    for (const step of [before, after]) {
      const inOps = Object.values(step.by_kind).reduce((sum, kind) => sum + kind.seconds, 0);
      expect(Math.abs((inOps + step.idle_seconds) / step.seconds - 1)).toBeLessThan(0.05);
    }
  });
});
