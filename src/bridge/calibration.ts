/** Starts `python -m fpdt.calibrate`, which measures a machine for the cluster file of a plan. */
import { spawnSync } from 'node:child_process';
import { delimiter } from 'node:path';
import { FpdtError } from '../spec/errors.js';
import { PYTHON_FOLDER, SETUP_HINT } from './python.js';

/** Options of fpdt.calibrate by name, without the dashes: `seq-len`. */
export type CalibrationOptions = Readonly<Record<string, string | number | undefined>>;

/** Its text goes to this process's own output, or is returned. Throws `calibration-failed`; what was wrong, Python has said on stderr. */
export function runCalibration(python: string, options: CalibrationOptions, stdout: 'inherit' | 'pipe' = 'inherit'): string {
  const path = [PYTHON_FOLDER, process.env['PYTHONPATH']].filter((folder) => folder !== undefined && folder !== '').join(delimiter);
  const env = { ...process.env, PYTHONPATH: path, OMP_NUM_THREADS: '1' };
  const words = Object.entries(options).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}`, String(value)]));
  const done = spawnSync(python, ['-m', 'fpdt.calibrate', ...words], { env, stdio: ['ignore', stdout, 'inherit'], encoding: 'utf8' });
  if (done.status === 0) return done.stdout ?? '';
  throw new FpdtError(`the calibration failed: ${done.error?.message ?? `exit code ${done.status}`}`, {
    code: 'calibration-failed',
    hint: SETUP_HINT,
  });
}
