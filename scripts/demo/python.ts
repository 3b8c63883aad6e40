/** What the demo asks of Python before the run: real text to train on. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SETUP_HINT } from '../../src/bridge/python.js';
import { FpdtError } from '../../src/spec/errors.js';

/** Writes the sources of Python's own standard library, one after the other by name, until there are `numBytes` of them. */
export function writeStandardLibrary(
  python: string,
  path: string,
  numBytes: number,
  { fromTheEnd = false }: { readonly fromTheEnd?: boolean } = {},
): { readonly folder: string; readonly numFiles: number } {
  const folder = standardLibrary(python);
  const names = readdirSync(folder)
    .filter((name) => name.endsWith('.py'))
    .sort();
  if (fromTheEnd) names.reverse();
  const pieces: Buffer[] = [];
  let size = 0;
  for (const name of names) {
    if (size >= numBytes) break;
    const piece = readFileSync(join(folder, name));
    pieces.push(piece);
    size += piece.length;
  }
  if (size === 0)
    throw new FpdtError(`${folder} holds no Python sources`, { code: 'no-data', hint: 'use a Python whose standard library is on disk' });
  writeFileSync(path, Buffer.concat(pieces));
  return { folder, numFiles: pieces.length };
}

export function standardLibrary(python: string): string {
  const { status, stdout, error } = spawnSync(python, ['-c', 'import sysconfig; print(sysconfig.get_path("stdlib"))'], {
    encoding: 'utf8',
  });
  if (status === 0) return stdout.trim();
  throw new FpdtError(`${python} does not run: ${error?.message ?? `exit code ${status}`}`, { code: 'python-not-found', hint: SETUP_HINT });
}
