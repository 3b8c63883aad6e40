/** Where the Python worker and its interpreter are. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../package.js';
import { environmentFolder, isUnfinished, pythonOf } from '../setup/places.js';
import { FpdtError } from '../spec/errors.js';

/** The folder to have on PYTHONPATH for `import fpdt`. */
export const PYTHON_FOLDER = join(PACKAGE_ROOT, 'python');
export const SETUP_HINT = 'run `npx fpdt setup`, or set FPDT_PYTHON to a Python that has torch and deepspeed';

/**
 * The interpreter to run workers with: `explicit`, else FPDT_PYTHON, else the environment that setup made.
 * A name without a slash is looked up on PATH when it is started. Throws `python-not-found`.
 */
export function resolvePython(explicit?: string, environment: NodeJS.ProcessEnv = process.env): string {
  const chosen = explicit ?? environment.FPDT_PYTHON;
  if (chosen !== undefined && chosen !== '') {
    if (!chosen.includes('/') || existsSync(chosen)) return chosen;
    const source = explicit === undefined ? 'FPDT_PYTHON' : 'option python';
    throw notFound(`${source} names ${chosen}, which does not exist`, chosen);
  }
  const folder = environmentFolder(environment);
  const made = pythonOf(folder);
  if (isUnfinished(folder)) throw notFound(`the Python environment ${folder} is not whole: its setup was interrupted, or still runs`, made);
  if (existsSync(made)) return made;
  throw notFound(`no Python environment at ${folder}, and FPDT_PYTHON is not set`, made);
}

function notFound(message: string, path: string): FpdtError {
  return new FpdtError(message, { code: 'python-not-found', hint: SETUP_HINT, details: { path } });
}
