import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { RunEvent } from '../../src/bridge/events.js';
import { folderOf } from '../../src/bridge/runFolder/folderOptions.js';
import { resolvePython } from '../../src/bridge/python.js';
import { PACKAGE_ROOT } from '../../src/package.js';
import { samplePlan } from '../plan/samplePlan.js';
import { step } from '../report/sample.js';
import { makeFolder } from './folder.js';
import { PATIENCE_MS } from './patience.js';

const FAKES = join(PACKAGE_ROOT, 'test', 'fixtures', 'loggers');
const plan = samplePlan();
const stepEvent = (number: number): RunEvent => ({ type: 'step', step: step(number), ranks: [] });
const open = async (loggers: readonly string[], changes: Readonly<Record<string, string>> = {}, python = resolvePython()) => {
  const folder = await makeFolder();
  const told = join(folder, 'told');
  const environment = { ...process.env, PYTHONPATH: FAKES, FAKE_LOGGERS: told, ...changes };
  const options = { runFolder: join(folder, 'run'), loggers: loggers as ['wandb'], environment };
  return { run: await folderOf(plan, options, python, { resume: null }), told, path: options.runFolder };
};

describe('loggers', { timeout: PATIENCE_MS }, () => {
  test('get the lines of metrics.jsonl, all of them before the run is over', async () => {
    const { run, told } = await open(['wandb', 'mlflow', 'wandb']);
    for (const number of [0, 1, 2]) expect(run?.record(stepEvent(number))).toEqual([]);
    expect(await run?.close()).toEqual([]);
    const facts = readFileSync(told, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { readonly logger: string; readonly step?: number; readonly values?: object });
    for (const logger of ['wandb', 'mlflow']) {
      const own = facts.filter((fact) => fact.logger === logger && fact.step !== undefined);
      expect(own.map((fact) => fact.step)).toEqual([1, 2, 3]);
      expect(own[1]?.values).toMatchObject({ 'train/loss': 4.9, 'train/learningRate': 1e-4, 'train/gradientNorm': 0.75 });
    }
  });

  test('that fail are remarked on at the end, and their folder says why', async () => {
    const { run, path } = await open(['wandb'], { FAKE_LOGGERS_FAIL: 'wandb' });
    expect(run?.record(stepEvent(0))).toEqual([]);
    expect(await run?.close()).toEqual(['some metrics may not have reached their loggers: loggers.log says why']);
    expect(readFileSync(join(path, 'loggers.log'), 'utf8')).toContain('wandb gets no more metrics: ConnectionError');
  });

  test('that are not installed are refused with what installs them', async () => {
    await expect(open(['wandb'], { PYTHONPATH: '' })).rejects.toMatchObject({
      code: 'logger-not-started',
      message: expect.stringContaining('cannot import wandb') as string,
      hint: 'pip install wandb',
    });
  });

  test('cannot be started by a Python that is not there', async () => {
    await expect(open(['wandb'], {}, 'no-such-python')).rejects.toMatchObject({ code: 'logger-not-started' });
  });

  test('are refused by name where they are not known, and without a folder', async () => {
    await expect(open(['comet'])).rejects.toMatchObject({
      code: 'invalid-option',
      message: 'run option loggers: expected tensorboard or wandb or mlflow, found "comet"',
    });
    await expect(folderOf(plan, { loggers: ['wandb'] }, 'python', { resume: null })).rejects.toMatchObject({ code: 'run-folder-missing' });
  });
});
