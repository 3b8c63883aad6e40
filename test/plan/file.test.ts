import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inflateSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readPlanFile, writePlanFile } from '../../src/plan/file.js';
import { checkPlainFile } from '../../src/plan/wholeFile.js';
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
  header: string;
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

  it('hold the header as text, so that nobody has to form its bytes again', async () => {
    const path = join(folder, 'plan.json');
    const plan = samplePlan();
    await writePlanFile(plan, path);
    const file = JSON.parse(await fs.readFile(path, 'utf8')) as PlanFile;
    expect(file).toMatchObject({
      kind: 'executionPlanFile',
      version: 2,
      digest: plan.digest,
      prose: expect.stringContaining('memoryLedger') as string,
    });
    const hash = createHash('sha256').update(file.header);
    const { columns } = JSON.parse(file.header) as { readonly columns: readonly { readonly name: string }[] };
    for (const { name } of columns) hash.update(inflateSync(Buffer.from(file.columns[name] ?? '', 'base64')));
    expect(hash.digest('hex')).toBe(plan.digest);
  });

  it('that are missing, not JSON, cut short or something else are named', async () => {
    const path = join(folder, 'plan.json');
    await expect(readPlanFile(path)).rejects.toMatchObject({ code: 'plan-file-missing', message: expect.stringContaining(path) });
    await expect(readPlanFile(folder)).rejects.toMatchObject({
      code: 'plan-file-unreadable',
      message: expect.stringMatching(/it is a folder$/),
      hint: expect.stringContaining('fpdt plan'),
    });
    await fs.writeFile(path, '{"kind":"executionPlanFile","ver');
    await expect(readPlanFile(path)).rejects.toMatchObject({ code: 'plan-file-not-json' });
    for (const text of ['[]', 'null']) {
      await fs.writeFile(path, text);
      await expect(readPlanFile(path)).rejects.toMatchObject({ code: 'plan-file-not-json', hint: expect.stringContaining('fpdt plan') });
    }
    await fs.writeFile(path, '{"kind":"cluster"}');
    await expect(readPlanFile(path)).rejects.toMatchObject({ code: 'plan-file-kind' });
    await fs.writeFile(path, '{"kind":"executionPlanFile","version":2}');
    await expect(readPlanFile(path)).rejects.toMatchObject({ code: 'plan-damaged' });
  });

  it('of the first version say how to plan again', async () => {
    const old = fileURLToPath(new URL('../fixtures/plan/version-1.json', import.meta.url));
    await expect(readPlanFile(old)).rejects.toMatchObject({
      code: 'plan-version',
      message: 'the plan is of version 1, this fpdt reads version 2',
      hint: expect.stringContaining('fpdt plan'),
      details: { found: 1, expected: 2 },
    });
  });

  it('with a cut column or changed content are refused', async () => {
    await expect(readChanged((file) => Object.assign(file.columns, { opTokens: 'AAAA' }))).rejects.toMatchObject({
      code: 'plan-damaged',
      message: expect.stringContaining('opTokens does not inflate'),
    });
    await expect(readChanged((file) => (file.header = file.header.replace('"seed":7', '"seed":8')))).rejects.toMatchObject({
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
    await expect(writePlanFile(samplePlan(), path)).rejects.toMatchObject({ code: 'file-disk-full' });
    expect(await fs.readdir(folder)).toEqual(['plan.json']);
    expect(await readPlanFile(path)).toEqual(plan);
  });

  it('cannot be written into a folder that is not there', async () => {
    const hint = 'choose another place with --output';
    const written = (path: string): Promise<void> => writePlanFile(samplePlan(), path);
    const missing = { code: 'file-unwritable', message: expect.stringMatching(/its folder is not there$/) as string, hint };
    await expect(written(join(folder, 'no', 'plan.json'))).rejects.toMatchObject(missing);
    await expect(written(folder)).rejects.toMatchObject({ message: expect.stringMatching(/it is a folder$/) as string, hint });
  });

  it('never take the place of a link, a FIFO or a device', async () => {
    const link = join(folder, 'link.json');
    await fs.symlink('elsewhere.json', link);
    const fifo = join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    for (const path of [link, fifo]) {
      const before = await fs.lstat(path);
      await expect(writePlanFile(samplePlan(), path)).rejects.toMatchObject({ code: 'file-not-plain' });
      expect(await fs.lstat(path)).toMatchObject({ ino: before.ino, mode: before.mode });
    }
    expect((await fs.readdir(folder)).sort()).toEqual(['fifo', 'link.json']);
    // A device of the machine is looked at, and nothing is made beside it.
    expect(() => checkPlainFile('/dev/full', 'the plan file')).toThrow(/it is a device/);
  });
});
