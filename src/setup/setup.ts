/** All of `fpdt setup`: the Python environment, and the native addon where the one of the package does not load. */
import { spawnSync } from 'node:child_process';
import { BUILD_SCRIPT, loadNativeAddon } from '../native.js';
import { FpdtError } from '../spec/errors.js';
import { hintFor } from './command.js';
import { type MadeEnvironment, makeEnvironment, type SetupOptions } from './makeEnvironment.js';
import { pinsOf, readPins } from './pins.js';
import { probe } from './probe.js';
import type { Say } from './steps.js';
import { pythonOf } from './places.js';

/** What `fpdt setup --json` prints. */
export interface SetupResult {
  readonly kind: 'setup';
  /** Of the environment that was made; null where FPDT_PYTHON names one, which is looked at and left as it is. */
  readonly folder: string | null;
  readonly python: string;
  readonly torch: string;
  /** Nothing had to be done. */
  readonly wasThere: boolean;
  readonly hasAddon: boolean;
}

/** Throws what makeEnvironment throws; `python-packages-missing` where FPDT_PYTHON names a Python that a run cannot use. */
export function setUp(options: SetupOptions, say: Say, variables: NodeJS.ProcessEnv = process.env): SetupResult {
  if (process.platform === 'win32') throw new FpdtError('Windows is not supported', { code: 'unsupported', hint: 'use Linux, or WSL' });
  const own = variables.FPDT_PYTHON ?? '';
  const made =
    own === '' || options.into !== undefined ? withAdvice(() => makeEnvironment(options, say)) : ownEnvironment(own, options, say);
  const hasAddon = buildAddon(say);
  if (own !== '' && made.folder !== null) say(`FPDT_PYTHON is set: runs use ${own} until it is unset, or is ${pythonOf(made.folder)}`);
  return { kind: 'setup', ...made, hasAddon };
}

type Environment = Omit<MadeEnvironment, 'folder'> & { readonly folder: string | null };

/** Nothing is made: runs would not use it. */
function ownEnvironment(python: string, { also }: SetupOptions, say: Say): Environment {
  say(`FPDT_PYTHON names ${python}: looking at it, making none`);
  const pins = new Map([...readPins(), ...(also === undefined ? [] : pinsOf(also))]);
  const hint = 'unset FPDT_PYTHON to have one made, or set it to the python of an environment';
  const { packages, importErrors } = probe(python, hint, also === undefined ? [] : [...pinsOf(also).keys()]);
  const problems = [
    ...Object.entries(packages).flatMap(([name, version]) => (version === null ? [`${name} is not installed`] : [])),
    ...Object.entries(importErrors).map(([name, problem]) => `${name}: ${problem}`),
  ];
  if (problems.length > 0) {
    const wanted = Object.entries(packages).flatMap(([name, version]) => (version === null ? [`'${name}==${pins.get(name)}'`] : []));
    throw new FpdtError(`FPDT_PYTHON=${python} cannot do a run: ${problems.join('; ')}`, {
      code: 'python-packages-missing',
      hint: `${wanted.length === 0 ? '' : `'${python}' -m pip install ${wanted.join(' ')}; or `}unset FPDT_PYTHON to have an environment made`,
    });
  }
  for (const [name, version] of Object.entries(packages)) {
    const pin = pins.get(name);
    if (pin !== undefined && version?.split('+')[0] !== pin) say(`  ${name} is ${version}; fpdt is tested with ${pin}`);
  }
  return { folder: null, python, torch: packages['torch'] ?? '', wasThere: true };
}

/** Whether there is one now. Without it all works, some of it slower: that is said once, in the script's own words. */
function buildAddon(say: Say): boolean {
  if ('addon' in loadNativeAddon()) return true;
  const { stderr, error } = spawnSync(process.execPath, [BUILD_SCRIPT], { encoding: 'utf8' });
  if ('addon' in loadNativeAddon()) return true;
  say(stderr.trim().split('\n').at(-1) ?? error?.message ?? '');
  return false;
}

/** What the file system says while an environment is made, in words that say what to do. */
function withAdvice<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Error && 'syscall' in error)) throw error;
    throw new FpdtError(error.message, { code: 'setup-failed', hint: hintFor(error.message), cause: error });
  }
}
