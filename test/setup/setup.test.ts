import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/** scripts/setup is plain JavaScript, for a fresh clone has nothing else; so it is asked in a process of its own. */
function ask(expression: string): string {
  const modules = ['shared', 'node', 'copies'].map(
    (name) => `...await import(${JSON.stringify(pathToFileURL(`scripts/setup/${name}.mjs`).href)})`,
  );
  const program = `
    const setup = { ${modules.join(', ')} };
    try { console.log(JSON.stringify(${expression})); }
    catch (error) { console.log(JSON.stringify({ message: error.message, hint: error.hint })); }`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return stdout.trim();
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-setup-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('setup', () => {
  it('refuses an old Node and takes 20.19 and later', () => {
    expect(ask('setup.checkNode("18.20.1")')).toMatch(/Node 18\.20\.1 is too old/);
    expect(ask('[setup.checkNode("20.19.0"), setup.checkNode("22.1.0")]')).toBe('[null,null]');
  });

  it('sees whether node_modules has what the lock file pins', () => {
    const lock = (version: string) => JSON.stringify({ packages: { '': {}, a: { version }, b: { version: '1.0.0', optional: true } } });
    const installed = (version: string) => JSON.stringify({ packages: { a: { version } } });
    mkdirSync(join(folder, 'node_modules'), { recursive: true });
    writeFileSync(join(folder, 'package-lock.json'), lock('1.2.3'));
    const root = JSON.stringify(folder);
    expect(ask(`setup.packagesMatchLock(${root})`)).toBe('false');
    writeFileSync(join(folder, 'node_modules', '.package-lock.json'), installed('1.2.3'));
    expect(ask(`setup.packagesMatchLock(${root})`)).toBe('true');
    writeFileSync(join(folder, 'node_modules', '.package-lock.json'), installed('1.2.2'));
    expect(ask(`setup.packagesMatchLock(${root})`)).toBe('false');
  });

  it('says in one line why there is no copy engine, and goes on', () => {
    const lacking = join(folder, 'lacking-python');
    writeFileSync(lacking, '#!/bin/sh\necho "fpdt: no native copy engine (there is no C++ compiler)" >&2\n', { mode: 0o755 });
    const arguments_ = `${JSON.stringify(lacking)}, ${JSON.stringify(join(folder, 'copies.stamp'))}`;
    const twice = `(() => {
      const said = [];
      process.stderr.write = (text) => said.push(text);
      for (const _ of [1, 2]) setup.buildCopies(${arguments_});
      return said;
    })()`;
    expect(JSON.parse(ask(twice))).toEqual([
      'setup: compiling the native copy engine ...\n',
      'setup:   fpdt: no native copy engine (there is no C++ compiler)\n',
    ]);
  });

  it('turns a failed command into its last lines and advice', () => {
    const answer = ask(
      `setup.runLogged('sh', ['-c', 'echo before; echo "OSError: [Errno 28] No space left on device" >&2; exit 3'], { log: 'test.log', what: 'a step' })`,
    );
    expect(answer).toMatch(/a step failed \(exit code 3\)/);
    expect(answer).toMatch(/The disk is full/);
    expect(answer).toMatch(/\.fpdt\/test\.log/);
  });

  it.each([
    ['npm error code ENOTFOUND', /registry could not be reached/],
    ['npm error code EACCES', /not writable/],
    ['something else', /Mend what the lines above name/],
  ])('advises on "%s"', (output, advice) => {
    expect(ask(`setup.hintFor(${JSON.stringify(output)})`)).toMatch(advice);
  });

  it('explains its usage', () => {
    const { status, stderr } = spawnSync(process.execPath, ['scripts/setup.mjs', '--for', 'fun'], { encoding: 'utf8' });
    expect(status).toBe(1);
    expect(stderr).toMatch(/did not understand "--for fun"\nhint: Usage: .*demo\|test\|plan/);
  });
});
