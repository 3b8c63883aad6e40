/** pip or uv: making an environment and installing into it. */
import { FpdtError } from '../spec/errors.js';
import { checkVenv, findPython } from './basePython.js';
import { outputOf } from './command.js';
import { PYTHON_MINORS } from './pins.js';

/** A program with its arguments. */
export type CommandLine = readonly [string, ...string[]];

export interface Installer {
  readonly name: 'pip' | 'uv';
  /** The environment's own tools: whether those of `python` are there, so that an interrupted setup may go on. */
  readonly isMade: (python: string) => boolean;
  /** Makes an empty environment. */
  readonly make: (folder: string) => CommandLine;
  readonly install: (python: string, args: readonly string[]) => CommandLine;
}

/** `given` is the Python to make it with. Throws `python-not-found` or `uv-not-found`. */
export function pip(given: string | undefined): Installer {
  const quiet = ['--no-input', '--disable-pip-version-check', '--progress-bar', 'off', '--retries', '2', '--timeout', '30'];
  return {
    name: 'pip',
    isMade: (python) => outputOf(python, ['-m', 'pip', '--version']) !== undefined,
    make: (folder) => {
      const base = findPython(given);
      checkVenv(base);
      return [base, '-m', 'venv', folder];
    },
    install: (python, args) => [python, '-m', 'pip', 'install', ...quiet, ...args],
  };
}

/** uv fetches a Python itself where none is given and none that does is there. */
export function uv(given: string | undefined): Installer {
  if (outputOf('uv', ['--version']) === undefined) {
    throw new FpdtError('uv was not found', { code: 'uv-not-found', hint: 'install it (pip install uv), or leave --uv out to use pip' });
  }
  return {
    name: 'uv',
    isMade: (python) => outputOf(python, ['-c', 'print(1)']) === '1',
    make: (folder) => {
      const base = given === undefined ? `>=3.${PYTHON_MINORS.oldest},<3.${PYTHON_MINORS.newest + 1}` : findPython(given);
      return ['uv', 'venv', '--no-progress', '--allow-existing', '--python', base, folder];
    },
    install: (python, args) => ['uv', 'pip', 'install', '--no-progress', '--python', python, ...args],
  };
}
