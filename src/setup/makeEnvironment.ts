/**
 * Makes the Python environment that runs use: torch in the build for this machine, then the worker's pinned packages. Begun, it is marked as
 * unfinished until all of it is there, so that nothing takes it for whole; another start goes on where it ended, and does nothing where
 * it is done.
 */
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { FpdtError } from '../spec/errors.js';
import { outputOf, runLogged } from './command.js';
import { type CommandLine, pip, uv } from './installer.js';
import { withLock } from './lock.js';
import { REQUIREMENTS, torchPin } from './pins.js';
import { begin, defaultFolder, finish, isOurs, pythonOf, readStamp, record } from './places.js';
import { probe } from './probe.js';
import { installInto, logOf, type Say, type Steps, timed } from './steps.js';
import { buildFor, installTorch, torchOf } from './torch.js';
import type { TorchChoice } from './torchBuilds.js';

export interface SetupOptions {
  readonly into?: string | undefined;
  readonly torch?: TorchChoice | undefined;
  /** The Python to make it with. */
  readonly python?: string | undefined;
  readonly uv?: boolean | undefined;
  /** A requirements file whose packages are installed too. */
  readonly also?: string | undefined;
}

export interface MadeEnvironment {
  readonly folder: string;
  readonly python: string;
  /** Version and build. */
  readonly torch: string;
  /** Nothing had to be done. */
  readonly wasThere: boolean;
}

/** Throws `setup-failed`, `disk-full`, `python-not-found`, `uv-not-found`, `setup-running`, `bad-folder` or `file-not-found`. */
export function makeEnvironment(options: SetupOptions, say: Say): MadeEnvironment {
  const folder = resolve(options.into ?? defaultFolder());
  const build = buildFor(options.torch);
  const wanted = stampOf(options, build);
  const python = pythonOf(folder);
  const found = readStamp(folder) === wanted && isBasedOn(python, options.python) ? torchOf(python) : undefined;
  if (found !== undefined) {
    record(folder);
    return { folder, python, torch: found, wasThere: true };
  }
  checkFolder(folder);
  const installer = options.uv === true ? uv(options.python) : pip(options.python);
  mkdirSync(dirname(folder), { recursive: true });
  return withLock(`${folder}.lock`, () => {
    // What cannot make another one leaves the one that is there as it is.
    const isKept = installer.isMade(python) && isBasedOn(python, options.python);
    const make = isKept ? undefined : installer.make(folder);
    begin(folder);
    const steps = { installer, python, folder, say };
    if (make !== undefined) makeEmpty(steps, make);
    const torch = installTorch(steps, build, options.torch === 'cpu');
    installRest(steps, options.also);
    checkImports(python);
    finish(folder, wanted);
    record(folder);
    return { folder, python, torch, wasThere: false };
  });
}

/** Whether an environment is of the same version of Python as the one that is asked for. */
function isBasedOn(python: string, given: string | undefined): boolean {
  const version = (path: string): string | undefined => outputOf(path, ['-c', 'import platform; print(platform.python_version())']);
  return given === undefined || version(python) === version(given);
}

/** Of all that decides what is installed. */
function stampOf({ also }: SetupOptions, build: string): string {
  const hash = createHash('sha256').update(`${torchPin()}\0${build}\0`).update(readFileSync(REQUIREMENTS));
  if (also !== undefined) hash.update('\0').update(readRequirements(also));
  return hash.digest('hex');
}

function readRequirements(path: string): Buffer {
  if (existsSync(path)) return readFileSync(path);
  throw new FpdtError(`--also names ${path}, which does not exist`, { code: 'file-not-found', hint: 'give a requirements file of pip' });
}

/** A folder that is empty or ours: of no other is anything touched. */
function checkFolder(folder: string): void {
  const found = lstatSync(folder, { throwIfNoEntry: false });
  if (found === undefined) return;
  const kind = found.isSymbolicLink() ? 'a link' : found.isDirectory() ? undefined : 'no folder';
  if (kind !== undefined) throw badFolder(`${folder} is ${kind}`, 'give a new folder: npx fpdt setup --into FOLDER');
  if (isOurs(folder) || readdirSync(folder).length === 0) return;
  const isEnvironment = existsSync(join(folder, 'pyvenv.cfg'));
  throw badFolder(
    `${folder} holds something that setup did not make`,
    isEnvironment
      ? `to run with that environment as it is: export FPDT_PYTHON='${pythonOf(folder)}'; else give a new folder`
      : 'give a new folder: npx fpdt setup --into FOLDER',
  );
}

function badFolder(message: string, hint: string): FpdtError {
  return new FpdtError(message, { code: 'bad-folder', hint });
}

function makeEmpty({ folder, say }: Steps, [file, ...args]: CommandLine): void {
  // What a cut start left: an environment that does not run.
  for (const name of readdirSync(folder)) if (!name.startsWith('.fpdt-')) rmSync(join(folder, name), { recursive: true });
  timed(say, `making a Python environment in ${folder}`, () => runLogged({ file, args, log: logOf(folder) }));
}

/** DeepSpeed is a source package that looks at torch while it builds: no isolation, and no op compiled ahead of use. */
function installRest(steps: Steps, also: string | undefined): void {
  timed(steps.say, 'installing deepspeed, transformers, pyzmq and what they need', () => {
    installInto(steps, ['setuptools']);
    const files = also === undefined ? ['-r', REQUIREMENTS] : ['-r', REQUIREMENTS, '-r', resolve(also)];
    installInto(steps, ['--no-build-isolation', ...files]);
  });
}

function checkImports(python: string): void {
  const { importErrors, packages } = probe(python, 'start setup again');
  const missing = Object.entries(packages).flatMap(([name, version]) => (version === null ? [`${name} is not installed`] : []));
  const problems = [...missing, ...Object.entries(importErrors).map(([name, problem]) => `${name}: ${problem}`)];
  if (problems.length === 0) return;
  throw new FpdtError(`the environment is made, but a run could not import ${problems.join('; ')}`, {
    code: 'setup-failed',
    hint: 'mend what the lines above name (a missing system library, say) and start again',
  });
}
