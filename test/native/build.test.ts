import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadNativeAddon } from '../../src/native.js';

const repository = fileURLToPath(new URL('../..', import.meta.url));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-native-'));
  cpSync(join(repository, 'native'), join(folder, 'native'), { recursive: true, filter: (path) => basename(path) !== 'build' });
  symlinkSync(join(repository, 'node_modules'), join(folder, 'node_modules'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const build = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  execa(process.execPath, [join(folder, 'native', 'build.mjs'), ...args], { env, reject: false });

describe('native/build.mjs', () => {
  it('without a compiler says once what does not work and succeeds, unless asked to be strict', async () => {
    const none = { CXX: '/nonexistent/c++' };
    const lenient = await build([], none);
    expect(lenient.exitCode).toBe(0);
    expect(lenient.stderr.split('\n')).toEqual([
      expect.stringMatching(
        /^fpdt: the native addon was not built \(.+\); doctor and calibrate know no facts of this machine and long plans take longer, all else works/,
      ),
    ]);
    expect(existsSync(join(folder, 'native', 'build', 'fpdt.node'))).toBe(false);
    expect((await build(['--strict'], none)).exitCode).toBe(1);
  });
});

describe('loadNativeAddon', () => {
  it('says why there is none: not built, no library, or of older sources', () => {
    const path = join(folder, 'fpdt.node');
    expect(loadNativeAddon([path])).toEqual({ reason: 'the native addon is not built' });
    writeFileSync(path, 'not a shared library');
    expect(loadNativeAddon([path])).toMatchObject({
      reason: expect.stringMatching(/^the native addon does not load: .*fpdt\.node/) as string,
    });
    const old = join(folder, 'old.cjs');
    writeFileSync(old, 'exports.placeByConflicts = () => 0;');
    expect(loadNativeAddon([old])).toEqual({ reason: 'the native addon was built from older sources' });
  });

  it('takes the next where one does not load', () => {
    const broken = join(folder, 'broken.node');
    writeFileSync(broken, 'cut');
    const sound = join(folder, 'sound.cjs');
    writeFileSync(sound, 'exports.machineFacts = exports.startReplay = () => 0;');
    expect(loadNativeAddon([join(folder, 'none.node'), broken, sound])).toHaveProperty('addon');
    expect(loadNativeAddon([broken, join(folder, 'none.node')])).toMatchObject({
      reason: expect.stringContaining('broken.node') as string,
    });
  });
});
