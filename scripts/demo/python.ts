/** What the demo asks of Python before the run: a calibrated cluster, and real text to train on. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { PYTHON_FOLDER, SETUP_HINT } from '../../src/bridge/python.js';
import { FpdtError } from '../../src/spec/errors.js';

export interface Calibration {
  readonly model: string;
  readonly ranks: number;
  readonly seqLen: number;
  readonly chunkTokens: number;
  readonly output: string;
}

const CALIBRATION_SECONDS = 10;

/** Measures this machine with the run's own shapes; everything together takes at most ten seconds. */
export function calibrate(python: string, { model, ranks, seqLen, chunkTokens, output }: Calibration): void {
  const options = { model, ranks, 'seq-len': seqLen, 'chunk-tokens': chunkTokens, seconds: CALIBRATION_SECONDS, output };
  runCalibrate(
    python,
    Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]),
    'inherit',
  );
}

/** How much faster (above 1) or slower this machine is now than when `cluster` was measured; takes at most five seconds. */
export function speedFactor(python: string, cluster: string): number {
  const { factor } = JSON.parse(runCalibrate(python, ['--compare', cluster], 'pipe')) as { readonly factor: number };
  return factor;
}

function runCalibrate(python: string, options: readonly string[], stdout: 'inherit' | 'pipe'): string {
  const path = [PYTHON_FOLDER, process.env['PYTHONPATH']].filter((folder) => folder !== undefined && folder !== '').join(delimiter);
  const env = { ...process.env, PYTHONPATH: path, OMP_NUM_THREADS: '1' };
  const done = spawnSync(python, ['-m', 'fpdt.calibrate', ...options], { env, stdio: ['ignore', stdout, 'inherit'], encoding: 'utf8' });
  if (done.status === 0) return done.stdout ?? '';
  throw new FpdtError(`the calibration failed: ${done.error?.message ?? `exit code ${done.status}`}`, {
    code: 'calibration-failed',
    hint: SETUP_HINT,
  });
}

/** Writes the sources of Python's own standard library, one after the other, until there are `numBytes` of them. */
export function writeStandardLibrary(
  python: string,
  path: string,
  numBytes: number,
): { readonly folder: string; readonly numFiles: number } {
  const folder = standardLibrary(python);
  const names = readdirSync(folder)
    .filter((name) => name.endsWith('.py'))
    .sort();
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

function standardLibrary(python: string): string {
  const { status, stdout, error } = spawnSync(python, ['-c', 'import sysconfig; print(sysconfig.get_path("stdlib"))'], {
    encoding: 'utf8',
  });
  if (status === 0) return stdout.trim();
  throw new FpdtError(`${python} does not run: ${error?.message ?? `exit code ${status}`}`, { code: 'python-not-found', hint: SETUP_HINT });
}
