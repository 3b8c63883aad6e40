/** Pythons that only say what they have. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { Check } from '../../src/machine/check.js';
import { readPins, RUN_PACKAGES } from '../../src/setup/pins.js';
import type { Probe } from '../../src/setup/probe.js';
import { pythonChecks } from '../../src/setup/pythonChecks.js';

const folder = mkdtempSync(join(tmpdir(), 'fpdt-checks-'));
afterAll(() => rmSync(folder, { recursive: true }));

const pins = readPins();
const PINNED = Object.fromEntries(Object.keys(RUN_PACKAGES).map((name) => [name, pins.get(name) ?? null]));
const SOUND: Probe = { python: '3.11.4', executable: '/x', packages: PINNED, importErrors: {}, gpu: null, torchCuda: null };

function checksOf(changes: Partial<Probe>, numGpus: number | null = 0, isOurs = false): ReadonlyMap<string, Check> {
  const environment = join(folder, String(Math.random()));
  mkdirSync(join(environment, 'bin'), { recursive: true });
  if (isOurs) writeFileSync(join(environment, '.fpdt-stamp'), '');
  const python = join(environment, 'bin', 'python');
  writeFileSync(python, `#!/bin/sh\necho 'a library prints'\necho '${JSON.stringify({ ...SOUND, ...changes })}'\n`);
  chmodSync(python, 0o755);
  return new Map(pythonChecks(() => python, 'none', numGpus).map((check) => [check.name, check]));
}

describe('pythonChecks', () => {
  it('finds nothing wrong with what is pinned', () => {
    const checks = checksOf({});
    expect([...checks.values()].filter(({ status, name }) => status !== 'ok' && name !== 'gpu')).toEqual([]);
    expect([...checks.keys()]).toEqual(['python', ...Object.keys(RUN_PACKAGES), 'gpu']);
  });

  it('says with the command of that Python what is missing, broken or of another version', () => {
    const packages = { ...PINNED, pyzmq: null, transformers: '4.0.0' };
    const checks = checksOf({ packages, importErrors: { deepspeed: 'ImportError: libaio' } });
    expect(checks.get('pyzmq')).toMatchObject({
      status: 'missing',
      hint: expect.stringMatching(/^'.*\/bin\/python' -m pip install 'pyzmq==/) as string,
    });
    expect(checks.get('deepspeed')).toMatchObject({ status: 'missing', found: expect.stringContaining('ImportError: libaio') as string });
    expect(checks.get('transformers')).toMatchObject({ status: 'warning', found: expect.stringMatching(/^4\.0\.0, not /) as string });
    expect(checksOf({ packages }, 0, true).get('pyzmq')?.hint).toBe('npx fpdt setup');
  });

  it('refuses a Python that is too old', () => {
    expect(checksOf({ python: '3.9.1' }).get('python')).toMatchObject({
      status: 'missing',
      hint: expect.stringContaining('--python') as string,
    });
  });

  it('holds torch against the GPUs of the machine', () => {
    expect(checksOf({ gpu: 'H100', torchCuda: '13.0' }, 1).get('gpu')).toMatchObject({ status: 'ok' });
    expect(checksOf({}, 2, true).get('gpu')).toMatchObject({ status: 'warning', hint: 'npx fpdt setup --torch cuda' });
    expect(checksOf({ torchCuda: '13.0' }, 2).get('gpu')).toMatchObject({
      status: 'warning',
      hint: expect.stringContaining('driver') as string,
    });
    expect(checksOf({}, null).get('gpu')).toMatchObject({ found: 'none: ranks run on the CPU' });
  });
});
