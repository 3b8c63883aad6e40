/** What README.md tells people to type works as it stands there. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const README = readFileSync('README.md', 'utf8');
/** Files that are here, and sizes that end soon; the README must say the first of each. */
const REPLACEMENTS = [
  [`from 'fpdt'`, `from '${resolve('src/index.ts')}'`],
  [`'config.json'`, `'${resolve('examples/demo/model/config.json')}'`],
  [`'ds_config.json'`, `'${resolve('examples/demo/ds_config.json')}'`],
  [`'corpus.txt'`, `'${resolve('README.md')}'`],
  [`'16K'`, `'512'`],
  ['numSteps: 20', 'numSteps: 2'],
] as const;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-readme-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function node(...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', ...args], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return stdout;
}

/** The words of the command in the README that begins so. */
function command(start: string): readonly string[] {
  const line = README.split('\n').find((one) => one.trimStart().startsWith(`npx fpdt ${start}`)) ?? '';
  return line.trim().split(/\s+/).slice(2);
}

describe('README', () => {
  it('its TypeScript plans and trains', { tags: ['full'] }, () => {
    const block = /```ts\n([\s\S]*?)```/.exec(README)?.[1] ?? '';
    for (const [from] of REPLACEMENTS) expect(block).toContain(from);
    const path = join(folder, 'readme.mts');
    writeFileSync(
      path,
      REPLACEMENTS.reduce((text, [from, to]) => text.replaceAll(from, to), block),
    );
    const steps = node(path).trim().split('\n');
    expect(steps).toHaveLength(2);
    for (const step of steps) expect(step).toMatch(/^\d\.\d+ \d+$/);
  });

  it('its commands plan the paper’s case and draw a section as printed there', () => {
    const path = join(folder, 'plan.json');
    node('src/cli/main.ts', ...command('plan --model examples/llama-3-8b.json'), '--output', path);
    const drawn = npx('fpdt', 'show', path, ...command('show plan.json layerBackward').slice(2, 3));
    const turn = /-- attention backward: k, v of chunk 1 \(outer\), q ascending \(inner\)\n.*attnBwd q1 k1.*\n.*copy q@host4/;
    expect(README).toMatch(turn);
    expect(drawn).toMatch(turn);
  });
});

/** The compiled command line, as set-up leaves it; npx would make it executable in a cache that is new. */
function npx(...args: readonly string[]): string {
  accessSync('dist/cli/main.js', constants.X_OK);
  const env = { ...process.env, npm_config_cache: join(folder, 'npm'), npm_config_offline: 'true' };
  const { status, stdout, stderr } = spawnSync('npx', ['--yes', ...args], { encoding: 'utf8', env });
  expect(status, stderr).toBe(0);
  return stdout;
}
