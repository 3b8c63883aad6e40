import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { OUTPUT_SCHEMAS } from '../../src/report/outputSchemas.js';
import { capture, DEMO } from './capture.js';

let folder: string;
const path = (name: string): string => join(folder, name);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-diff-'));
  for (const [name, policy] of [
    ['a', 'auto'],
    ['again', 'auto'],
    ['b', 'fpdt'],
  ] as const) {
    expect(await capture('plan', ...DEMO, '--policy', policy, '--output', path(`${name}.json`))).toMatchObject({ exitCode: 0 });
  }
  symlinkSync(path('a.json'), path('link.json'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('fpdt diff', () => {
  it('prints inputs, strategy, memory by item and time by op kind', async () => {
    const { exitCode, stdout } = await capture('diff', path('a.json'), path('b.json'));
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/\nInputs\n {2}run\.policy +"auto" -> "fpdt"\n/);
    expect(stdout).toMatch(/\nStrategy\n {2}strategy\.policy /);
    expect(stdout).toMatch(/\nhost memory per rank: .* -> .*\nitem +a +b +change\n/);
    expect(stdout).toMatch(/\nStep\n[\s\S]*^stepSeconds +\S+ +\S+ +[+-]\S+$/m);
    expect(stdout).toMatch(/\nTime by op kind\n[\s\S]*^attn /m);
  });

  it('prints JSON by its schema', async () => {
    const { stdout } = await capture('diff', path('a.json'), path('b.json'), '--json');
    const printed = OUTPUT_SCHEMAS.planDiff.parse(JSON.parse(stdout));
    expect(printed.inputs).toEqual([{ path: 'run.policy', a: 'auto', b: 'fpdt' }]);
  });

  it('says so where two files hold the same plan', async () => {
    expect(await capture('diff', path('a.json'), path('again.json'))).toMatchObject({
      exitCode: 0,
      stdout: `${path('a.json')} and ${path('again.json')} are the same plan`,
    });
  });

  it.each([
    ['a.json', 2, /are one file\nhint: give two plan files/],
    ['link.json', 2, /are one file/],
    ['none.json', 1, /there is no plan file/],
  ])('refuses %s beside a.json', async (other, code, message) => {
    const { exitCode, stderr } = await capture('diff', path('a.json'), path(other));
    expect(exitCode).toBe(code);
    expect(stderr).toMatch(message);
  });

  it('refuses what is no plan file', async () => {
    const { exitCode, stderr } = await capture('diff', path('a.json'), 'package.json');
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/package\.json is not a plan file: .*\nhint: /);
  });
});
