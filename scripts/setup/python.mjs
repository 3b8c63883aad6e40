/** The Python half of setup: what `fpdt setup` of the library that was just built does, with the packages of the tests where they are wanted. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ALREADY_SAID, ROOT, STATE, SetupError, hashOf, outputOf } from './shared.mjs';

const COMMAND = join(ROOT, 'dist', 'cli', 'main.js');
const TESTS = join(ROOT, 'python', 'requirements-test.txt');

/** Makes sure that a Python which can run the worker is there; returns its path. */
export function preparePython({ withTests, env = process.env }) {
  const python = env.FPDT_PYTHON || join(ROOT, '.venv', 'bin', 'python');
  const state = stateOf(withTests, env.FPDT_PYTHON);
  const marker = join(STATE, 'python.stamp');
  if (state !== undefined && existsSync(marker) && readFileSync(marker, 'utf8') === state) return python;
  const args = [COMMAND, 'setup', ...(withTests ? ['--also', TESTS] : [])];
  const { status, error } = spawnSync(process.execPath, args, { cwd: ROOT, env, stdio: ['ignore', 'ignore', 'inherit'] });
  if (error !== undefined) throw new SetupError(`fpdt setup did not start: ${error.message}`, 'Start again.');
  if (status !== 0) throw new SetupError(ALREADY_SAID, '');
  mkdirSync(STATE, { recursive: true });
  writeFileSync(marker, stateOf(withTests, env.FPDT_PYTHON) ?? '');
  return python;
}

/** Of an environment of the user's own, since to import all of it takes seconds: which it is and what it has; undefined where it does not run. */
function stateOf(withTests, own) {
  if (own === undefined || own === '') return undefined;
  const versions = outputOf(own, ['-c', VERSIONS]);
  return versions === undefined
    ? undefined
    : hashOf(['python/requirements.txt', 'python/requirements-test.txt'], own, versions, String(withTests));
}

const VERSIONS = 'import importlib.metadata as m; print(sorted((d.metadata["Name"] or "", d.version) for d in m.distributions()))';
