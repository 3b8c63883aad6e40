/** Real runs with planted faults: the demo's verdict on memory, with and without a leak, and the death of a rank. */
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it, test } from 'vitest';
import { type ExecutionPlan, launchRun, planRun, type Run } from '../../src/index.js';
import { type Comparison, compareRun } from '../../src/report/compare.js';
import { judge } from '../../src/report/verdict.js';
import { errorOf } from '../bridge/echoRun.js';

const DEMO = fileURLToPath(new URL('../../examples/demo/', import.meta.url));
const DATA = fileURLToPath(new URL('../../CHANGELOG.md', import.meta.url));
const LEAK_BYTES = 64 * 2 ** 20;
const NUM_STEPS = 2;

let plan: ExecutionPlan;

beforeAll(async () => {
  plan = await planRun({
    model: `${DEMO}model/config.json`,
    deepspeed: `${DEMO}ds_config.json`,
    cluster: { gpus: 2, gpu: 'cpu' },
    run: { seqLen: 2048, numChunks: 4, numSteps: NUM_STEPS },
  });
});

async function launchWith(fault: string): Promise<Run> {
  return await launchRun(plan, { data: DATA, environment: { ...process.env, FPDT_FAULT: fault } });
}

async function compareWith(fault: string): Promise<Comparison> {
  return compareRun(plan, await (await launchWith(fault)).result);
}

/** Of the promises that no clock decides: this machine may be busy, and its rates were not calibrated. */
function brokenPromises(comparison: Comparison): readonly string[] {
  return judge(comparison).failures.filter((line) => !line.startsWith('step time'));
}

describe('the verdict on a run of 2 ranks', () => {
  it('finds memory, copies, loss and the sum of times as planned', { tags: ['full'] }, async () => {
    expect(brokenPromises(await compareWith(''))).toEqual([]);
  });

  it('fails on memory alone with a leak of 64 MiB a layer', async () => {
    const comparison = await compareWith(`leak:${LEAK_BYTES}`);
    expect(brokenPromises(comparison)).toEqual([expect.stringMatching(/^hbm memory within 5%/)]);
    // One forward a layer and step leaks, and all of it is seen.
    const [hbm] = comparison.pools;
    const unleaked = (hbm?.measured ?? 0) - LEAK_BYTES * plan.model.numLayers * NUM_STEPS;
    expect(Math.abs(unleaked / (hbm?.planned ?? 0) - 1)).toBeLessThan(0.05);
  });
});

test('a rank killed in a step stops all ranks', async () => {
  const error = await errorOf(await launchWith('kill:1:1'));
  expect(error).toMatchObject({ code: 'rank-died', details: { rank: 1, phase: 'stepping', signal: 'SIGKILL' } });
  expect(error.message).toMatch(/^rank 1: was killed by SIGKILL \(phase stepping, step [01] or the next\)$/);
});
