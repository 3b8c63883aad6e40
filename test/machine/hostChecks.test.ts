import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type Host, hostChecks } from '../../src/machine/hostChecks.js';

const folder = mkdtempSync(join(tmpdir(), 'fpdt-host-'));
afterAll(() => rmSync(folder, { recursive: true }));
writeFileSync(join(folder, 'c++'), '', { mode: 0o755 });
writeFileSync(join(folder, 'libaio.h'), '');
const HOST: Host = { platform: 'linux', sharedMemory: folder, temporary: folder, path: folder, includes: [folder] };

const of = (changes: Partial<Host>, numGpus = 2) => hostChecks({ ...HOST, ...changes }, numGpus);

describe('hostChecks', () => {
  it('finds nothing wrong with a host in good order', () => {
    expect(of({}, 0).map(({ name, status }) => `${name} ${status}`)).toEqual([
      'system ok',
      'temporary folder ok',
      'shared memory ok',
      'compiler ok',
      'libaio ok',
    ]);
  });

  it.each<[string, Partial<Host>, number, string, RegExp]>([
    ['system', { platform: 'win32' }, 0, 'missing', /WSL/],
    ['system', { platform: 'darwin' }, 0, 'warning', /run on Linux/],
    ['temporary folder', { temporary: '/nowhere/at/all' }, 0, 'missing', /export TMPDIR=\/tmp/],
    ['temporary folder', { temporary: `/tmp/../tmp/${'../tmp/'.repeat(12)}` }, 0, 'missing', /export TMPDIR=\/tmp/],
    ['shared memory', { sharedMemory: '/nowhere' }, 2, 'warning', /tmpfs/],
    // Of /proc there is none free.
    ['shared memory', { sharedMemory: '/proc' }, 8, 'warning', /--shm-size=8g/],
    ['compiler', { path: '/nowhere' }, 0, 'warning', /apt-get install g\+\+/],
    ['libaio', { includes: ['/nowhere'] }, 0, 'warning', /apt-get install libaio-dev/],
  ])('judges %s of %j', (name, changes, numGpus, status, hint) => {
    const found = of(changes, numGpus).find((check) => check.name === name);
    expect(found).toMatchObject({ status, hint: expect.stringMatching(hint) as string });
  });
});
