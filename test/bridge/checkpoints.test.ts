/** The course of runs that save, stop, go on and start again, with real processes and without torch. */
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkpointOptions } from '../../src/bridge/checkpointOptions.js';
import type { RunEvent } from '../../src/bridge/events.js';
import type { RunOptions } from '../../src/bridge/runOptions.js';
import { signalGroup } from '../../src/bridge/processGroup.js';
import { startWithRestarts } from '../../src/bridge/restarts.js';
import { collect, echoSetup, errorOf, runEcho, waitFor } from './echoRun.js';
import { PATIENCE_MS } from './patience.js';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fpdt-saved-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

function saving(
  changes: Partial<NonNullable<RunOptions['checkpoint']>> = {},
  resume: RunOptions['resume'] = null,
): { options: RunOptions } {
  const checkpoint = { folder, every: null, keep: 3, onSaveFailure: 'stop', ...changes } as const;
  return { options: { ...echoSetup('ok').options, checkpoint, resume } };
}

const isStep =
  (step: number) =>
  (event: RunEvent): boolean =>
    event.type === 'step' && event.step.step === step;

describe('a run with a folder for checkpoints', { timeout: PATIENCE_MS }, () => {
  test('saves every so many steps and when all are done, each once', async () => {
    const { options } = saving({ every: 2 });
    const run = await runEcho('ok', { options: { ...options, data: 'ok' }, numSteps: 5 });
    const events = await collect(run);
    const saved = events.flatMap((one) => (one.type === 'checkpoint' ? [one.checkpoint] : []));
    expect(saved.map(({ step }) => step)).toEqual([2, 4, 5]);
    expect(saved[0]).toMatchObject({ folder: join(folder, '2'), bytes: 64, seconds: 0.5, blockedSeconds: 1.25, problem: null });
    expect(await run.result).toMatchObject({ nextStep: 5, isStopped: false, checkpoints: [{ step: 2 }, { step: 4 }, { step: 5 }] });
  });

  test('saves no last one twice, and goes on to the export', async () => {
    const { options } = saving({ every: 2 });
    const run = await runEcho('ok', { options: { ...options, export: 'model' }, numSteps: 4 });
    const types = (await collect(run)).flatMap((one) => (one.type === 'checkpoint' || one.type === 'exported' ? [one.type] : []));
    expect(types).toEqual(['checkpoint', 'checkpoint', 'exported']);
  });

  test('goes on at the step of the newest one, and has the steps from there', async () => {
    await mkdir(join(folder, '2'));
    const run = await runEcho('ok', { ...saving({}, { newest: true, path: null }), numSteps: 4 });
    const events = await collect(run);
    expect(events).toContainEqual({ type: 'log', rank: null, stream: 'stderr', line: 'goes on at step 2' });
    expect((await run.result).steps.map(({ step }) => step)).toEqual([2, 3]);
    expect((await readdir(folder)).sort()).toEqual(['2', '4']);
  });

  test('has nothing to do where all steps are done', async () => {
    await mkdir(join(folder, '4'));
    const run = await runEcho('ok', { ...saving({}, { newest: true, path: null }), numSteps: 4 });
    expect((await collect(run)).filter(({ type }) => type === 'checkpoint')).toEqual([]);
    expect(await run.result).toMatchObject({ steps: [], nextStep: 4, isStopped: false });
  });

  test('evaluates after the steps that it runs itself, and at the end in any case', async () => {
    await mkdir(join(folder, '2'));
    const evaluation = { data: 'held_out', sequences: null, every: 2 };
    const afterSteps = async (numSteps: number): Promise<readonly number[]> => {
      const { options } = saving({}, { newest: true, path: null });
      const run = await runEcho('ok', { options: { ...options, evaluation }, numSteps });
      await collect(run);
      return (await run.result).evaluations.map(({ step }) => step);
    };
    expect(await afterSteps(5)).toEqual([4, 5]);
    expect(await afterSteps(5)).toEqual([5]);
  });

  test('says that one could not be written, and goes on', async () => {
    const run = await runEcho('full', { options: { ...saving({ every: 1 }).options, data: 'full' }, numSteps: 2 });
    await collect(run);
    expect((await run.result).checkpoints.map(({ step, problem }) => [step, problem])).toEqual([
      [1, 'no space left'],
      [2, 'no space left'],
    ]);
  });
});

describe('a run that is asked to stop', { timeout: PATIENCE_MS }, () => {
  test('ends after the step that runs, with a checkpoint and without an export', async () => {
    const options = { ...saving().options, data: 'slow', export: 'model' };
    const run = await runEcho('slow', { options, numSteps: 100 });
    await waitFor(run, isStep(1));
    run.stop('SIGTERM');
    const types = (await collect(run)).map(({ type }) => type);
    const result = await run.result;
    expect(result.isStopped).toBe(true);
    // The one that ran, and the one that began before all had heard.
    expect(result.nextStep).toBeLessThanOrEqual(4);
    expect(result.checkpoints).toMatchObject([{ step: result.nextStep, problem: null }]);
    expect(types).not.toContain('exported');
  });

  test('evaluates what it trained, and no step that it left out', async () => {
    const options = { ...saving().options, data: 'slow', evaluation: { data: 'held_out', sequences: null, every: 1 } };
    const run = await runEcho('slow', { options, numSteps: 100 });
    await waitFor(run, isStep(1));
    run.stop('SIGTERM');
    await collect(run);
    const { evaluations, nextStep, isStopped } = await run.result;
    expect(isStopped).toBe(true);
    expect(evaluations.map(({ step }) => step)).toEqual(Array.from({ length: nextStep }, (_, at) => at + 1));
  });

  test('twice is once', async () => {
    const run = await runEcho('slow', { options: { ...saving({ every: 1 }).options, data: 'slow' }, numSteps: 100 });
    await waitFor(run, isStep(1));
    run.stop('SIGTERM');
    run.stop('SIGTERM');
    await collect(run);
    const { checkpoints, nextStep } = await run.result;
    expect(checkpoints.map(({ step }) => step)).toEqual(Array.from({ length: nextStep }, (_, at) => at + 1));
  });

  test('while its last step runs, it just ends', async () => {
    const run = await runEcho('slow', { options: { ...saving().options, data: 'slow' }, numSteps: 2 });
    await waitFor(run, isStep(0));
    run.stop('SIGTERM');
    await collect(run);
    const { isStopped, nextStep } = await run.result;
    expect(isStopped).toBe(nextStep < 2);
  });

  test('before the first step is aborted', async () => {
    const run = await runEcho('ok', saving());
    run.stop('SIGTERM');
    expect(await errorOf(run)).toMatchObject({ code: 'run-aborted' });
  });

  test('does not lose its ranks to a signal that the whole group is sent', async () => {
    const run = await runEcho('slow', { options: { ...saving().options, data: 'slow' }, numSteps: 3 });
    await waitFor(run, isStep(0));
    for (const pid of run.pids) for (const signal of ['SIGINT', 'SIGTERM'] as const) signalGroup(pid, signal);
    await collect(run);
    expect(await run.result).toMatchObject({ nextStep: 3, isStopped: false });
  });
});

describe('a run whose rank dies', { timeout: PATIENCE_MS }, () => {
  test('starts again from the newest checkpoint and has each step once', async () => {
    await mkdir(join(folder, 'armed'));
    const evaluation = { data: 'held_out', sequences: null, every: 1 };
    const options = { ...saving({ every: 2 }).options, data: 'once@1:3', evaluation };
    const run = await startWithRestarts(echoSetup('once@1:3', { options, numSteps: 5 }), 1);
    const events = await collect(run);
    expect(events.filter(({ type }) => type === 'restart')).toMatchObject([
      { number: 1, of: 1, reason: expect.stringContaining('rank 1: exited with code 17') },
    ]);
    const { steps, checkpoints, nextStep, evaluations } = await run.result;
    expect(evaluations.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5]);
    expect(steps.map(({ step, loss }) => [step, loss])).toEqual([0, 1, 2, 3, 4].map((step) => [step, 10 - step]));
    expect(nextStep).toBe(5);
    expect(checkpoints.at(-1)).toMatchObject({ step: 5 });
    expect(events.at(-1)).toMatchObject({ type: 'end', outcome: { ok: true } });
  });

  test.each([
    { lost: true, evaluated: [2, 4, 5] },
    { lost: false, evaluated: [4, 5] },
  ])('evaluates first where the one before it could not: $lost', async ({ lost, evaluated }) => {
    await mkdir(join(folder, '2'));
    const evaluation = { data: 'held_out', sequences: null, every: 2 };
    const options = { ...saving({}, { newest: true, path: null }).options, evaluation };
    const run = await runEcho('ok', { options, numSteps: 5, lacksEvaluation: (step) => lost && step === 2 });
    await collect(run);
    const { steps, evaluations } = await run.result;
    expect(evaluations.map(({ step }) => step)).toEqual(evaluated);
    expect(steps.map(({ step }) => step)).toEqual([2, 3, 4]);
  });

  test('fails when the budget is used up, with what the last rank died of', async () => {
    const options = { ...saving().options, data: 'exit@1:1' };
    const run = await startWithRestarts(echoSetup('exit@1:1', { options }), 2);
    const restarts: unknown[] = [];
    const error: unknown = await (async () => {
      for await (const event of run) if (event.type === 'restart') restarts.push(event);
    })().catch((reason: unknown) => reason);
    expect(restarts).toHaveLength(2);
    expect(error).toMatchObject({ code: 'rank-died', details: { rank: 1 } });
  });

  test('does not start again for what a user has to change, nor when it is told to end', async () => {
    const refused = await startWithRestarts(echoSetup('import', { options: { ...saving().options, data: 'import' } }), 5);
    expect(await errorOf(refused)).toMatchObject({ code: 'python-packages-missing' });
    const aborted = await startWithRestarts(echoSetup('ok', { ...saving(), numSteps: 10_000 }), 5);
    await waitFor(aborted, isStep(0));
    aborted.abort('interrupted');
    expect(await errorOf(aborted)).toMatchObject({ code: 'run-aborted' });
  });
});

describe('options', () => {
  test('are whole where the folder alone is given', () => {
    expect(checkpointOptions({ checkpoint: 'saved' })).toEqual({
      checkpoint: { folder: 'saved', every: null, keep: 3, onSaveFailure: 'stop' },
      resume: null,
    });
    expect(checkpointOptions({ checkpoint: 'saved', resume: 'auto' }).resume).toEqual({ newest: true, path: null });
    expect(checkpointOptions({ resume: tmpdir() })).toEqual({ checkpoint: null, resume: { newest: false, path: tmpdir() } });
  });

  test.each([
    [{ every: 2 }, 'run option every is about checkpoints'],
    [{ keep: 2 }, 'run option keep is about checkpoints'],
    [{ restarts: 1 }, 'run option restarts is about checkpoints'],
    [{ resume: 'auto' }, 'run option resume is about checkpoints'],
    [{ resume: '/nowhere/step-00000001' }, "resume: there is no folder '/nowhere/step-00000001'"],
  ])('%o is refused', (choices, said) => {
    expect(() => checkpointOptions(choices)).toThrow(said);
  });
});
