import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadNativeAddon } from '../../src/native.js';

const repository = fileURLToPath(new URL('../..', import.meta.url));
const SOURCES = ['build.mjs', 'binding.gyp', 'addon.cc', 'place.cc', 'place.h'];

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-native-'));
  mkdirSync(join(folder, 'native'));
  for (const name of SOURCES) cpSync(join(repository, 'native', name), join(folder, 'native', name));
  symlinkSync(join(repository, 'node_modules'), join(folder, 'node_modules'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const build = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  execa(process.execPath, [join(folder, 'native', 'build.mjs'), ...args], { env, reject: false });

describe('native/build.mjs', () => {
  it('without a compiler says once that the twin is used and succeeds, unless asked to be strict', async () => {
    const none = { CXX: '/nonexistent/c++', CC: '/nonexistent/cc', LINK: '/nonexistent/c++' };
    const lenient = await build([], none);
    expect(lenient.exitCode).toBe(0);
    expect(lenient.stderr.split('\n')).toEqual([
      expect.stringMatching(/^fpdt: the native planner core was not built \(.+\); the TypeScript twin is used/),
    ]);
    expect(existsSync(join(folder, 'native', 'build', 'fpdt.node'))).toBe(false);
    expect((await build(['--strict'], none)).exitCode).toBe(1);
  }, 60_000);
});

describe('loadNativeAddon', () => {
  it('has neither addon nor error where none was built, an error where the file is not one', () => {
    const path = join(folder, 'fpdt.node');
    expect(loadNativeAddon(path)).toEqual({});
    writeFileSync(path, 'not a shared library');
    expect(loadNativeAddon(path).error).toBeInstanceOf(Error);
  });
});
