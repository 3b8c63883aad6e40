import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readPlanFile } from '../../src/plan/file.js';
import { programFromText } from '../../src/schedule/programText.js';
import { sectionNamed } from '../../src/schedule/schedule.js';
import { opFromText, sectionFromText } from '../../src/schedule/text.js';
import { capture, DEMO } from './capture.js';

let folder: string;
let planPath: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-cli-'));
  planPath = join(folder, 'plan.json');
  expect(await capture('plan', ...DEMO, '--policy', 'fpdt', '--output', planPath)).toMatchObject({ exitCode: 0 });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('fpdt show', () => {
  it('prints the summary of a plan file', async () => {
    const { exitCode, stdout } = await capture('show', planPath);
    expect(exitCode).toBe(0);
    expect(stdout).toContain('Strategy    fpdt');
    expect((await capture('show', planPath, '--price', '2')).stdout).toMatch(/Rank hours .*; at \$2 each/);
    expect(JSON.parse((await capture('show', planPath, '--json')).stdout)).toMatchObject({ kind: 'planSummary' });
  });

  it('draws a section by stream', async () => {
    const { stdout } = await capture('show', planPath, 'layerBackward');
    expect(stdout).toMatch(/id\s+compute\s+comm\s+h2d\s+d2h\s/);
    expect(stdout).toContain('attnBwd q3 k0');
    expect(stdout).toContain('-- attention backward: k, v of chunk 0 (outer), q ascending (inner)');
  });

  it('prints op text that parses back with --ops', async () => {
    const plan = await readPlanFile(planPath);
    const { stdout } = await capture('show', planPath, 'layerForward', '--ops');
    const section = sectionNamed(plan.sections, 'layerForward');
    expect(sectionFromText(stdout, plan)).toEqual(section);
    expect(opFromText((stdout.split('\n')[1] ?? '').trim(), section, plan)).toEqual(section.ops[0]);
  });

  it('prints the step program, which parses back, with --program', async () => {
    const plan = await readPlanFile(planPath);
    const { stdout } = await capture('show', planPath, '--program');
    expect(programFromText(stdout, plan)).toEqual(plan.programs.train);
    expect(stdout).toMatch(/^layer 1 backward: layerBackward\(x=1, dx=0\) layer 1/m);
    expect(JSON.parse((await capture('show', planPath, '--program', '--json')).stdout)).toEqual(plan.programs.train);
  });

  it('prints a section as JSON', async () => {
    const { stdout } = await capture('show', planPath, 'optimizerStep', '--json');
    expect(JSON.parse(stdout)).toMatchObject({ name: 'optimizerStep', params: [] });
  });

  it.each([
    [['layerBackwards'], 2, /did you mean 'layerBackward'/],
    [['everything'], 2, /sections: embedForward/],
    [['layerForward', '--program'], 2, /--program prints the whole step/],
    [['--ops'], 2, /--ops needs the name of a section/],
  ])('refuses %j', async (args, code, message) => {
    const { exitCode, stderr } = await capture('show', planPath, ...args);
    expect(exitCode).toBe(code);
    expect(stderr).toMatch(message);
  });

  it('says how to make a plan of the first version again', async () => {
    const { exitCode, stderr } = await capture('show', 'test/fixtures/plan/version-1.json');
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/error: the plan is of version 1, this fpdt reads version 2\nhint: plan again with `fpdt plan`/);
  });

  it('refuses a plan file that was cut short, and one that is not there', async () => {
    const cut = join(folder, 'cut.json');
    writeFileSync(cut, readFileSync(planPath, 'utf8').slice(0, 500));
    expect(await capture('show', cut)).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/cut short[\s\S]*hint: /) as string });
    expect(await capture('show', join(folder, 'none.json'))).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/no plan file/) as string,
    });
  });
});
