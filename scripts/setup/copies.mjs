/** The native copy engine of the worker: compiled ahead of use where there is a compiler; without one, said once, all else works. */

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { ROOT, STATE, hashOf, say } from './shared.mjs';

/** `python` is that of the worker; the library goes into the user's cache (python/fpdt/copies/build.py). */
export function buildCopies(python, marker = join(STATE, 'copies.stamp')) {
  const hash = hashOf(['native/cuda', 'python/fpdt/copies/build.py'], python, process.env.CXX ?? '');
  if (existsSync(marker) && readFileSync(marker, 'utf8') === hash) return;
  say('compiling the native copy engine ...');
  const PYTHONPATH = [join(ROOT, 'python'), process.env.PYTHONPATH].filter(Boolean).join(delimiter);
  const { status, stderr, error } = spawnSync(python, ['-m', 'fpdt.copies'], {
    encoding: 'utf8',
    env: { ...process.env, PYTHONPATH },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines = `${stderr ?? ''}${error?.message ?? ''}`.trim().split('\n');
  const problem = lines.at(-1) ?? '';
  say(status === 0 && problem === '' ? '  done' : `  ${problem}`);
  if (status === 0) writeFileSync(marker, hash);
}
