/** What the build leaves for the commands: one file, its code cache, and no package of a run where it is not needed. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DEMO } from './capture.js';

const COMMANDS = resolve('dist/cli');
const RUN_ONLY = ['zeromq', 'execa', 'pythonia'];

let folder: string;
/** Prints what was required to stderr when the process ends. */
let recorder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-bundle-'));
  recorder = join(folder, 'recorder.cjs');
  writeFileSync(
    recorder,
    `const Module = require('node:module'), load = Module._load, names = [];
    Module._load = function (name) { names.push(name); return load.apply(this, arguments); };
    process.on('exit', () => process.stderr.write('required: ' + names.join(' ') + '\\n'));`,
  );
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Packages of a run that a command line loads. */
function packagesOf(...args: readonly string[]): readonly string[] {
  const { stderr } = spawnSync(process.execPath, ['--require', recorder, join(COMMANDS, 'main.js'), ...args], { encoding: 'utf8' });
  const required = /^required: (.*)$/m.exec(stderr)?.[1]?.split(' ') ?? [];
  expect(required).toContain('node:fs');
  return RUN_ONLY.filter((name) => required.includes(name));
}

/** Whether V8 refuses the cache, `before` the bundle is compiled. */
function isRefused(before: string): boolean {
  const script = `import(${JSON.stringify(join(COMMANDS, 'bundle.js'))}).then((bundle) => { ${before}
    console.log(bundle.compileBundle(${JSON.stringify(COMMANDS)}).cachedDataRejected); })`;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  expect(stdout, stderr).toMatch(/^(?:true|false)\n$/);
  return stdout === 'true\n';
}

describe('the built commands', () => {
  it('come from a code cache that V8 takes, under the flags it was made with', () => {
    expect(isRefused('bundle.setFlags();')).toBe(false);
    expect(isRefused('')).toBe(true);
  });

  it('load what only a run needs for a run alone', () => {
    expect(packagesOf('plan', ...DEMO)).toEqual([]);
    expect(packagesOf('calibrate', '--facts')).toEqual([]);
    expect(packagesOf('run', join(folder, 'none.json'), '--data', 'none')).toEqual(['zeromq', 'execa']);
  });
});
