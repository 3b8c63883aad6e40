import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { checkRanksFit, hostCapacity, maxRanks } from '../../src/bridge/hostCapacity.js';
import type { LaunchOptions } from '../../src/bridge/launchOptions.js';
import { launchRun } from '../../src/bridge/launchRun.js';
import { isGroupAlive } from '../../src/bridge/processGroup.js';
import { sealPlan } from '../../src/plan/encode.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { planRun } from '../../src/strategy/planRun.js';
import { ECHO_PATH, errorOf } from './echoRun.js';
import { PATIENCE_MS } from './patience.js';

const DEMO = fileURLToPath(new URL('../../examples/demo/', import.meta.url));
const ECHO: LaunchOptions = { data: 'ok', worker: 'echo_worker', environment: { ...process.env, PYTHONPATH: ECHO_PATH } };
let plan: ExecutionPlan;

beforeAll(async () => {
  plan = await planRun({
    model: `${DEMO}model/config.json`,
    deepspeed: `${DEMO}ds_config.json`,
    cluster: { gpus: 2, gpu: 'cpu' },
    run: { seqLen: 256, numChunks: 2, policy: 'fpdt', numSteps: 2 },
  });
});

describe('launchRun', { timeout: PATIENCE_MS }, () => {
  test('brings a plan to all ranks unchanged and runs its steps', async () => {
    const run = await launchRun(plan, ECHO);
    expect(await run.result).toMatchObject({ digest: plan.digest, numRanks: 2, steps: [{ step: 0 }, { step: 1 }] });
    expect(run.pids.filter(isGroupAlive)).toEqual([]);
  });

  test('runs as many steps as asked for, also none', async () => {
    const run = await launchRun(plan, { ...ECHO, steps: 0 });
    expect((await run.result).steps).toEqual([]);
  });

  test('a signal aborts the run', async () => {
    const controller = new AbortController();
    const run = await launchRun(plan, { ...ECHO, data: 'hang@0:0', signal: controller.signal });
    controller.abort('interrupted');
    expect(await errorOf(run)).toMatchObject({ code: 'run-aborted', message: 'run aborted: interrupted' });
  });

  test('refuses a plan that was changed after it was made', async () => {
    const changed = { ...plan, run: { ...plan.run, seed: 99 } };
    await expect(launchRun(changed, ECHO)).rejects.toMatchObject({ code: 'plan-changed' });
  });

  test('refuses options that are not what they should be, by name', async () => {
    const refused = async (options: object, problem: string, hint: string): Promise<void> =>
      expect(launchRun(plan, { ...ECHO, ...options })).rejects.toMatchObject({
        code: 'invalid-option',
        message: `run option ${problem}`,
        hint,
      });
    await refused({ seed: -1 }, 'seed: expected a number >= 0, found -1', 'give a number >= 0, or leave seed out');
    await refused({ steps: 1.5 }, 'steps: expected a whole number >= 0, found 1.5', 'give a whole number >= 0, or leave steps out');
    await refused({ traceSteps: [0, -2] }, 'traceSteps.1: expected a number >= 0, found -2', 'give a number >= 0, or leave traceSteps out');
    await refused({ traceSteps: 3 }, 'traceSteps: expected a list, found 3', 'give a list, or leave traceSteps out');
    const modes = '"eager" or "lazy" or "random" or "threads" or "events" or "native"';
    await refused({ copyMode: 'lasy' }, `copyMode: expected ${modes}, found "lasy"`, `give ${modes}, or leave copyMode out`);
    await refused({ data: undefined }, 'data: expected a text, found nothing', 'give a text');
    const how = '"refuse" or "split" or "truncate"';
    await refused({ longDocuments: 'cut' }, `longDocuments: expected ${how}, found "cut"`, `give ${how}, or leave longDocuments out`);
    await refused({ dataSeed: -1 }, 'dataSeed: expected a number >= 0, found -1', 'give a number >= 0, or leave dataSeed out');
  });

  test('refuses more ranks than a host takes before a process is started', async () => {
    const many = sealPlan({ ...plan, cluster: { ...plan.cluster, numRanks: 1000 } });
    await expect(launchRun(many, { ...ECHO, python: '/nowhere' })).rejects.toMatchObject({
      code: 'too-many-ranks',
      message: expect.stringMatching(/^1000 ranks are more than .* takes: \d+, 8 for each of its \d+ processors$/) as string,
      hint: expect.stringContaining('--hostfile') as string,
    });
    const capacity = { name: 'one', numProcessors: 4, numGpus: 8 };
    expect(() => checkRanksFit({ numRanks: 9, device: 'cuda' }, capacity)).toThrow('9 ranks are more than one takes: 8, its GPUs');
    expect(() => checkRanksFit({ numRanks: 33, device: 'cpu' }, capacity)).toThrow(/more than one takes: 32/);
    checkRanksFit({ numRanks: 8, device: 'cuda' }, capacity);
    expect(maxRanks('cuda', { ...capacity, numGpus: null })).toBe(16);
    expect(hostCapacity({ CUDA_VISIBLE_DEVICES: '3, 1,-1,2' }).numGpus).toBe(2);
  });

  test('refuses folders of models that are not there, or in use, before a rank is started', async () => {
    await expect(launchRun(plan, { ...ECHO, weights: 'nowhere' })).rejects.toMatchObject({ code: 'weights-missing' });
    await expect(launchRun(plan, { ...ECHO, weights: `${DEMO}ds_config.json` })).rejects.toMatchObject({ code: 'weights-missing' });
    await expect(launchRun(plan, { ...ECHO, export: DEMO })).rejects.toMatchObject({ code: 'export-in-use' });
    await expect(launchRun(plan, { ...ECHO, export: `${DEMO}ds_config.json` })).rejects.toMatchObject({ code: 'export-in-use' });
  });

  test('refuses a plan with a file and no folder for it, before a rank is started', async () => {
    const filed = sealPlan({ ...plan, pools: [...plan.pools, { name: 'disk', kind: 'file', bytes: 4096 }] });
    await expect(launchRun(filed, ECHO)).rejects.toMatchObject({ code: 'disk-folder-missing', details: { bytes: 4096 } });
    const run = await launchRun(filed, { ...ECHO, diskFolder: '/scratch' });
    expect((await run.result).steps).toHaveLength(2);
  });

  test('refuses parameters that transformers does not have', async () => {
    const model = { ...plan.model, hfConfig: { ...plan.model.hfConfig, intermediate_size: 64 } };
    const other = sealPlan({ ...plan, model });
    await expect(launchRun(other, { ...ECHO, checkShapes: true })).rejects.toMatchObject({ code: 'parameters-differ' });
  });
});
