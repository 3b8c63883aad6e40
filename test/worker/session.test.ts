/** Real runs of small plans, all from one Python process: copies, orders, refusals, hangs and times of the worker. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FPDT_CASE, type ParityCase } from '../../scripts/parity/cases.js';
import { Harness, type JobResult, type StepResult } from '../../scripts/parity/harness.js';
import { namedPlans, planCase, smallDeepSpeed, smallModel, writeTokens } from '../../scripts/parity/setting.js';
import { type ExecutionPlan, planRun, writePlanFile } from '../../src/index.js';
import { sealPlan } from '../../src/plan/encode.js';
import type { ParameterTable } from '../../src/spec/types.js';
import { PATIENCE_MS } from '../bridge/patience.js';

/** Everything that can be on the host is there. */
const HOSTED: ParityCase = {
  ...FPDT_CASE,
  keyValueGradients: 'host',
  attentionOutput: 'host',
  hiddenGradients: 'host',
  backwardOrder: 'queryOuterDescending',
};
const RESIDENT: ParityCase = {
  ...HOSTED,
  sequenceParallelSize: 1,
  keyValues: 'hbm',
  keyValueGradients: 'hbm',
  attentionOutput: 'hbm',
  checkpoints: 'hbm',
  hiddenGradients: 'hbm',
};

let harness: Harness;
let folder: string;
let data: string;
let hosted: ExecutionPlan;
let baseline: JobResult;
let numRuns = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fpdt-session-'));
  data = await writeTokens(folder);
  harness = Harness.start();
  hosted = await planCase(HOSTED);
  baseline = await execute(hosted, { dumpGrads: join(folder, 'baseline') });
  expect(baseline.failed, baseline.traceback).toBeUndefined();
}, PATIENCE_MS);

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
  const { steps, failed, traceback } = await execute(plan, { options: { poison: false, disk_folder: folder }, ...more });
  expect(failed, traceback).toBeUndefined();
  if (steps?.[0] === undefined) throw new Error('a run without a step');
  return steps[0];
}

describe('gradients have the same bits', { timeout: PATIENCE_MS }, () => {
  const inOrder = async (copyMode: string): Promise<void> => {
    const dumpGrads = join(folder, copyMode);
    const ran = await execute(hosted, { dumpGrads, options: { copy_mode: copyMode, seed: 1 } });
    expect(ran.failed, ran.traceback).toBeUndefined();
    expect(ran).toMatchObject({ losses: baseline.losses });
    expect(await harness.run({ kind: 'compare', left: dumpGrads, right: join(folder, 'baseline') })).toMatchObject({ error: 0 });
  };

  it('with copies and exchanges random instead of eager', async () => inOrder('random'));
  it('with copies and exchanges lazy instead of eager', { tags: ['full'] }, async () => inOrder('lazy'));
});

describe('bytes copied, counted by the device, are those of the plan', { timeout: PATIENCE_MS }, () => {
  it('with everything on the host', () => {
    const { copiedBytes } = hosted.prediction;
    expect(moved(baseline.steps?.[0]?.copied_bytes ?? {})).toEqual(moved(copiedBytes));
    expect(Object.keys(moved(copiedBytes))).toEqual(['d2h', 'h2d']);
  });

  it('with all resident: none', async () => {
    const plan = await planCase(RESIDENT);
    expect(moved(plan.prediction.copiedBytes)).toEqual({});
    expect(moved((await oneStep(plan)).copied_bytes)).toEqual({});
  });

  it('with checkpoints in a file, which counts its whole size', async () => {
    const plan = await planCase({ ...HOSTED, checkpoints: 'disk' });
    const step = await oneStep(plan);
    expect(moved(step.copied_bytes)).toEqual(moved(plan.prediction.copiedBytes));
    expect(Object.keys(moved(step.copied_bytes))).toEqual(['d2h', 'h2d', 'read', 'write']);
    expect(step.memory_measured).toBe(true);
    expect(step.pool_bytes['disk']).toBe(plan.pools.find(({ name }) => name === 'disk')?.bytes);
  });
});

/** Streams that moved anything. */
function moved(bytes: Readonly<Record<string, number>>): Record<string, number> {
  const entries = Object.entries(bytes).filter(([, count]) => count > 0);
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

describe('a worker refuses a table of parameters that is not its model’s', { timeout: PATIENCE_MS }, () => {
  it.each<readonly [string, (table: ParameterTable) => Partial<ParameterTable>, string]>([
    [
      'another shape',
      ({ layers }) => ({
        layers: layers.map((one) => ({ ...one, weights: one.weights.map((row) => ({ ...row, shape: [...row.shape, 1] })) })),
      }),
      'the plan says (',
    ],
    ['a weight the model lacks', ({ head }) => ({ head: head.map((row) => ({ ...row, name: `${row.name}s` })) }), 'that the module lacks'],
    [
      'a weight the plan lacks',
      ({ layers }) => ({ layers: layers.map((one) => ({ ...one, weights: one.weights.slice(0, -1) })) }),
      'the model trains 4 weights that the plan lacks',
    ],
    ['another count', ({ numModelParameters }) => ({ numModelParameters: numModelParameters + 1 }), 'parameters, the plan says'],
  ])('%s', async (_name, change, message) => {
    const { failed } = await execute(sealPlan({ ...hosted, parameters: { ...hosted.parameters, ...change(hosted.parameters) } }));
    expect(failed).toMatch(/^ParameterError: /);
    expect(failed).toContain(message);
  });
});

describe('a job', { timeout: PATIENCE_MS }, () => {
  it('that hangs says where each of its ranks is', async () => {
    const { failed, traceback } = await execute(hosted, { idleSeconds: 5, environment: { FPDT_FAULT: 'hang:1:0' } });
    expect(failed).toMatch(/^the job hangs: no rank has moved for 5 s; rank 0 in .*; rank 1 in _stop \(testing\/faults\.py:/);
    expect(traceback).toContain('in run_step');
  });

  it('may be of 8 ranks on any number of processors', { tags: ['full'] }, async () => {
    const named = namedPlans().find(({ name }) => name.includes(' P8 '));
    const plan = await named?.plan();
    expect(plan?.cluster.numRanks).toBe(8);
    if (plan !== undefined) expect((await oneStep(plan)).loss).toBeGreaterThan(0);
  });

  it.each([
    [{ timeout: 20 }, 'a job of kind worker has no timeout'],
    [{ options: { attention: 'reference' } }, 'attention'],
  ])('with %j, which nobody reads, is refused', async (more, message) => {
    expect((await execute(hosted, more)).failed).toContain(message);
  });
});

describe('a sleep of 50 ms in one handler', { timeout: PATIENCE_MS }, () => {
  const SLEEP_SECONDS = 0.05;

  it('shows under its kind only: all of it does, and op time + idle is the step', async () => {
    const plan = await planCase(RESIDENT);
    const step = await oneStep(plan, { environment: { FPDT_FAULT: `sleep:post:${SLEEP_SECONDS}` } });
    const count = plan.prediction.byKind['post']?.count ?? 0;
    expect(step.by_kind['post']?.count).toBe(count);
    expect(SLEEP_SECONDS * count).toBeGreaterThan(0.5);
    expect(step.by_kind['post']?.seconds).toBeGreaterThanOrEqual(SLEEP_SECONDS * count);
    const inOps = Object.values(step.by_kind).reduce((sum, kind) => sum + kind.seconds, 0);
    expect(Math.abs((inOps + step.idle_seconds) / step.seconds - 1)).toBeLessThan(0.05);
  });
});

describe('a model of which a part trains', { timeout: PATIENCE_MS }, () => {
  const lora = { r: 8, lora_alpha: 16, target_modules: 'all-linear' };
  const model = {
    ...smallModel({ numHeads: 8, numKvHeads: 4, tied: false, window: null }),
    hidden_size: 256,
    vocab_size: 2048,
    head_dim: 32,
    intermediate_size: 688,
  };

  it.each<readonly [string, number, Record<string, unknown>]>([
    ['adapters', 2, { lora }],
    ['half of the layers and the head', 0, { freeze: ['model.embed_tokens.*', 'model.layers.[01].*'] }],
  ])('%s: the planned memory is that of a run', { tags: ['full'] }, async (_what, stage, training) => {
    const plan = await planRun({
      model,
      cluster: { gpus: 2, gpu: 'cpu' },
      deepspeed: smallDeepSpeed(stage, 1),
      run: { seqLen: 512, seed: 1, numSteps: 3, sequenceParallelSize: 2, policy: 'fpdt', numChunks: 4, ...training },
    });
    const { steps, losses, failed, traceback } = await execute(plan, { steps: 3, options: { poison: false } });
    expect(failed, traceback).toBeUndefined();
    const measured = Math.max(...(steps ?? []).map((step) => step.pool_bytes['hbm'] ?? 0));
    expect(Math.abs((plan.memory.pools[0]?.peakBytes ?? 0) / measured - 1)).toBeLessThan(0.02);
    expect(losses?.at(-1)).toBeLessThan(losses?.[0] ?? 0);
  });
});
