/** Real workers in environments in which torch or deepspeed cannot be imported. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { launchRun } from '../../src/bridge/launchRun.js';
import { SETUP_HINT } from '../../src/bridge/python.js';
import { type ExecutionPlan, planRun } from '../../src/index.js';
import { errorOf } from './echoRun.js';
import { makeFolder } from './folder.js';
import { PATIENCE_MS } from './patience.js';

let plan: ExecutionPlan;

beforeAll(async () => {
  plan = await planRun({ model: 'examples/demo/model/config.json', cluster: { gpus: 1, gpu: 'cpu' }, run: { seqLen: 64 }, deepspeed: {} });
});

/** A folder for PYTHONPATH whose package of that name fails as `statement` does. */
async function brokenPackage(name: string, statement: string): Promise<string> {
  const folder = await makeFolder();
  await mkdir(join(folder, name));
  await writeFile(join(folder, name, '__init__.py'), `${statement}\n`);
  return folder;
}

describe('a worker', { timeout: PATIENCE_MS }, () => {
  test.each([
    ['torch', `raise ModuleNotFoundError("No module named 'torch'", name='torch')`, 'cannot import torch'],
    ['torch', `raise OSError('libcudart.so.13: cannot open shared object file')`, 'libcudart.so.13'],
    ['deepspeed', `raise ImportError('the extension was built for another torch', name='deepspeed')`, 'cannot import deepspeed'],
  ])('that cannot import %s says so, and what to run', async (name, statement, message) => {
    const environment = { ...process.env, PYTHONPATH: await brokenPackage(name, statement) };
    const error = await errorOf(await launchRun(plan, { data: 'CHANGELOG.md', environment }));
    expect(error).toMatchObject({ code: 'python-packages-missing', hint: SETUP_HINT, details: { rank: 0, phase: 'loading' } });
    expect(error.message).toContain(message);
    expect(error.details?.traceback).toContain(statement);
  });
});
