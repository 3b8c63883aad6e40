/** Where the Python environment is: that of this checkout, the one that setup made last, or where it would make one. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { PACKAGE_ROOT, VERSION } from '../package.js';

type Variables = Readonly<Record<string, string | undefined>>;

/** Written before anything else of an environment, and removed after all of it: an environment with one is not whole. */
const UNFINISHED = '.fpdt-unfinished';
/** What a whole environment was made of. */
export const STAMP = '.fpdt-stamp';
const RECORD = 'environment.json';

/** A folder of the user's for this version, which outlives node_modules: XDG_DATA_HOME, as the XDG base directory specification has it. */
export function dataFolder({ XDG_DATA_HOME }: Variables = process.env): string {
  const base = XDG_DATA_HOME !== undefined && isAbsolute(XDG_DATA_HOME) ? XDG_DATA_HOME : join(homedir(), '.local', 'share');
  return join(base, 'fpdt', VERSION);
}

/** Where setup makes an environment unless it is told another folder: in a checkout, beside its sources. */
export function defaultFolder(variables: Variables = process.env): string {
  return isCheckout() ? join(PACKAGE_ROOT, '.venv') : join(dataFolder(variables), 'python');
}

export function isCheckout(): boolean {
  return existsSync(join(PACKAGE_ROOT, 'scripts', 'setup.mjs'));
}

/** The environment to run with where none is named: the checkout's own, else the one that setup made last. */
export function environmentFolder(variables: Variables = process.env): string {
  const own = defaultFolder(variables);
  return isCheckout() && existsSync(own) ? own : (recordedFolder(variables) ?? own);
}

export function pythonOf(folder: string): string {
  return join(folder, 'bin', 'python');
}

export function isUnfinished(folder: string): boolean {
  return existsSync(join(folder, UNFINISHED));
}

/** Whether setup made it, or began to. */
export function isOurs(folder: string): boolean {
  return isUnfinished(folder) || existsSync(join(folder, STAMP));
}

export function begin(folder: string): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, UNFINISHED), '');
  rmSync(join(folder, STAMP), { force: true });
}

/** The last thing that is done: from now on it is whole. */
export function finish(folder: string, stamp: string): void {
  writeWhole(join(folder, STAMP), stamp);
  rmSync(join(folder, UNFINISHED));
}

export function readStamp(folder: string): string | undefined {
  const path = join(folder, STAMP);
  return existsSync(path) && !isUnfinished(folder) ? readFileSync(path, 'utf8') : undefined;
}

/** Says to later runs where it is, of whichever project they are. */
export function record(folder: string, variables: Variables = process.env): void {
  mkdirSync(dataFolder(variables), { recursive: true });
  writeWhole(join(dataFolder(variables), RECORD), `${JSON.stringify({ kind: 'pythonEnvironment', folder })}\n`);
}

function recordedFolder(variables: Variables): string | undefined {
  const path = join(dataFolder(variables), RECORD);
  if (!existsSync(path)) return undefined;
  try {
    const { folder } = JSON.parse(readFileSync(path, 'utf8')) as { readonly folder?: unknown };
    return typeof folder === 'string' ? folder : undefined;
  } catch (error) {
    // Of no use to anyone: the next setup writes it anew.
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function writeWhole(path: string, text: string): void {
  const unfinished = `${path}.${process.pid}`;
  writeFileSync(unfinished, text);
  renameSync(unfinished, path);
}
