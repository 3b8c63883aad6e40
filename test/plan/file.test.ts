import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readPlanFile, writePlanFile } from '../../src/plan/file.js';
import { samplePlan } from './samplePlan.js';

vi.mock('node:fs/promises', async (original) => ({ ...(await original<typeof fs>()) }));

let folder: string;
beforeEach(async () => {
  folder = await fs.mkdtemp(join(tmpdir(), 'fpdt-plan-'));
});
afterEach(async () => {
  vi.restoreAllMocks();
  await fs.rm(folder, { recursive: true });
});

interface PlanFile {
  version: number;
  digest: string;
  header: { run: { seed: number } };
  columns: Record<string, string>;
}

/** Writes a plan file, changes it and reads it back. */
async function readChanged(change: (file: PlanFile) => void): Promise<unknown> {
  const path = join(folder, 'plan.json');
  await writePlanFile(samplePlan(), path);
  const file = JSON.parse(await fs.readFile(path, 'utf8')) as PlanFile;
  change(file);
  await fs.writeFile(path, JSON.stringify(file));
  return readPlanFile(path);
}

describe('plan files', () => {
  it('come back as the same plan, whatever the white space', async () => {
    const path = join(folder, 'plan.json');
    const plan = samplePlan();
    await writePlanFile(plan, path);
    expect(await readPlanFile(path)).toEqual(plan);
    await fs.writeFile(path, JSON.stringify(JSON.parse(await fs.readFile(path, 'utf8')), null, 2));
    expect(await readPlanFile(path)).toEqual(plan);
    expect(await fs.readdir(folder)).toEqual(['plan.json']);
  });

  it('that are missing, not JSON, cut short or something else are named', async () => {
    const path = join(folder, 'plan.json');
    await expect(readPlanFile(path)).rejects.toMatchObject({ code: 'plan-file-missing', message: expect.stringContaining(path) });
    await expect(readPlanFile(folder)).rejects.toMatchObject({ code: 'plan-file-unreadable' });
    await fs.writeFile(path, '{"kind":"executionPlanFile","ver');
    await expect(readPlanFile(path)).rejects.toMatchObject({ code: 'plan-file-not-json' });
    await fs.writeFile(path, '{"kind":"cluster"}');
    await expect(readPlanFile(path)).rejects.toMatchObject({ code: 'plan-file-kind' });
  });

  it('of an older version, with a cut column or changed content are refused', async () => {
    await expect(readChanged((file) => Object.assign(file, { version: 0 }))).rejects.toMatchObject({
      code: 'plan-version',
      hint: expect.stringContaining('fpdt plan'),
    });
    await expect(readChanged((file) => Object.assign(file.columns, { opTokens: 'AAAA' }))).rejects.toMatchObject({
      code: 'plan-damaged',
      message: expect.stringContaining('opTokens has 3 bytes'),
    });
    await expect(readChanged(({ header }) => Object.assign(header.run, { seed: header.run.seed + 1 }))).rejects.toMatchObject({
      code: 'plan-digest-mismatch',
    });
  });

  it('are left as they were when the disk is full', async () => {
    const path = join(folder, 'plan.json');
    const plan = samplePlan();
    await writePlanFile(plan, path);
    const { open } = await vi.importActual<typeof fs>('node:fs/promises');
    vi.spyOn(fs, 'open').mockImplementation(async (...args) => {
      const handle = await open(...args);
      handle.writeFile = () => Promise.reject(Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' }));
      return handle;
    });
    await expect(writePlanFile(samplePlan('auto'), path)).rejects.toMatchObject({ code: 'plan-file-disk-full' });
    expect(await fs.readdir(folder)).toEqual(['plan.json']);
    expect(await readPlanFile(path)).toEqual(plan);
  });

  it('cannot be written into a folder that is not there', async () => {
    await expect(writePlanFile(samplePlan(), join(folder, 'no', 'plan.json'))).rejects.toMatchObject({ code: 'plan-file-unwritable' });
  });
});
