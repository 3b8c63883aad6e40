/** What the demo asks of Python before the run: a calibrated cluster, and real text to train on. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runCalibration } from '../../src/bridge/calibration.js';
import { SETUP_HINT } from '../../src/bridge/python.js';
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
  runCalibration(python, { model, ranks, 'seq-len': seqLen, 'chunk-tokens': chunkTokens, seconds: CALIBRATION_SECONDS, output });
}

/** How much faster (above 1) or slower this machine is now than when `cluster` was measured; takes at most five seconds. */
export function speedFactor(python: string, cluster: string): number {
  const { factor } = JSON.parse(runCalibration(python, { compare: cluster }, 'pipe')) as { readonly factor: number };
  return factor;
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
