/** A Python to make the environment with. */
import { FpdtError } from '../spec/errors.js';
import { outputOf } from './command.js';
import { PYTHON_MINORS } from './pins.js';

const CANDIDATES = ['python3', 'python3.11', 'python3.12', 'python3.13'];
const { oldest, newest } = PYTHON_MINORS;
const NEEDED = `fpdt needs Python 3.${oldest} to 3.${newest}`;
const INSTALL =
  'on Debian and Ubuntu: apt-get install python3 python3-venv; or with uv, which fetches a Python itself: npx fpdt setup --uv';

/** `given`, which must do; else the first of PATH that does. Throws `python-not-found`. */
export function findPython(given?: string, candidates: readonly string[] = CANDIDATES): string {
  const seen: string[] = [];
  for (const name of given === undefined ? candidates : [given]) {
    const version = outputOf(name, ['-c', 'import sys; print("%d.%d" % sys.version_info[:2])']);
    if (version === undefined || !/^\d+\.\d+$/.test(version.trim())) continue;
    if (isSupported(version)) return name;
    seen.push(`${name} is ${version}`);
  }
  if (given !== undefined && seen.length === 0) throw notFound(`--python ${given} does not run as a Python interpreter`);
  throw notFound(seen.length === 0 ? `no python3 was found; ${NEEDED}` : `${NEEDED}; found: ${seen.join(', ')}`);
}

/** Whether a version such as 3.12 or 3.12.4 is one that fpdt runs with. */
export function isSupported(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major === 3 && minor >= oldest && minor <= newest;
}

/** Throws `python-not-found` for one that cannot make environments: Debian has that in a package of its own. */
export function checkVenv(python: string): void {
  if (outputOf(python, ['-c', 'import venv, ensurepip']) !== undefined) return;
  throw notFound(`${python} cannot make environments: its venv or ensurepip module is missing`);
}

function notFound(message: string): FpdtError {
  return new FpdtError(message, { code: 'python-not-found', hint: INSTALL });
}
