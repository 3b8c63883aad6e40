/** What every setup step needs: messages, errors with a hint, commands with a log, stamps and a lock. Plain Node. */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const STATE = join(ROOT, '.fpdt');

/** The message of a SetupError whose cause has told the user all. */
export const ALREADY_SAID = '';

/** A failure the user can act on: what happened and what to do. */
export class SetupError extends Error {
  constructor(message, hint) {
    super(message);
    this.hint = hint;
  }
}

export function say(text) {
  process.stderr.write(`setup: ${text}\n`);
}

/** Says what is done, does it, and says how long it took. */
export function timed(text, work) {
  const started = Date.now();
  say(`${text} ...`);
  const result = work();
  say(`  done in ${((Date.now() - started) / 1000).toFixed(1)} s`);
  return result;
}

/** Runs a command with its output in .fpdt/<log>; on failure throws with the last lines and a hint that fits them. */
export function runLogged(command, args, { log, env = {}, what }) {
  mkdirSync(STATE, { recursive: true });
  const path = join(STATE, log);
  const descriptor = openSync(path, 'w');
  const result = spawnSync(command, args, { cwd: ROOT, env: { ...process.env, ...env }, stdio: ['ignore', descriptor, descriptor] });
  closeSync(descriptor);
  if (result.status === 0) return;
  const output = readFileSync(path, 'utf8');
  const reason = result.error?.message ?? (result.signal === null ? `exit code ${result.status}` : `signal ${result.signal}`);
  throw new SetupError(`${what} failed (${reason}):\n${lastLines(output, 12)}`, `${hintFor(output)} Full log: ${relative(ROOT, path)}`);
}

/** Output of a short command, or undefined when it cannot run or fails. */
export function outputOf(command, args) {
  const result = spawnSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  return result.status === 0 ? result.stdout.trim() : undefined;
}

const HINTS = [
  [/ENOSPC|No space left on device|errno 28/i, 'The disk is full: free about 1 GiB and start again.'],
  [/EACCES|Permission denied|EPERM/i, 'A file is not writable: check who owns the project folder and the package cache.'],
  [/EBADENGINE/i, 'This version of Node is too old or too new for a pinned package.'],
  [
    /ENOTFOUND|ETIMEDOUT|ECONNREFUSED|ECONNRESET|EAI_AGAIN|Connection|timed out|Temporary failure in name resolution/i,
    'The package registry could not be reached: check the network and proxy settings, then start again.',
  ],
];

export function hintFor(output) {
  return HINTS.find(([pattern]) => pattern.test(output))?.[1] ?? 'Mend what the lines above name and start again.';
}

export function lastLines(text, count) {
  return text
    .trimEnd()
    .split('\n')
    .slice(-count)
    .map((line) => `  ${line}`)
    .join('\n');
}

/** SHA-256 over texts and the contents of files and folders below the root. */
export function hashOf(paths, ...texts) {
  const hash = createHash('sha256');
  for (const text of texts) hash.update(`${text}\0`);
  for (const path of paths.flatMap((item) => filesBelow(join(ROOT, item)))) {
    hash.update(`${relative(ROOT, path)}\0`).update(readFileSync(path));
  }
  return hash.digest('hex');
}

function filesBelow(path) {
  if (!existsSync(path)) return [];
  if (!statSync(path).isDirectory()) return [path];
  const names = readdirSync(path).filter((name) => !['build', 'prebuilt', 'node_modules', '__pycache__'].includes(name));
  return names.sort().flatMap((name) => filesBelow(join(path, name)));
}

/** A stamp lies in the folder it speaks of, so deleting the folder deletes the stamp. */
export function isStamped(folder, hash) {
  const path = join(ROOT, folder, '.fpdt-stamp');
  return existsSync(path) && readFileSync(path, 'utf8') === hash;
}

export function stamp(folder, hash) {
  writeFileSync(join(ROOT, folder, '.fpdt-stamp'), hash);
}

/** Keeps two setups of one checkout apart: the second waits, and takes over from a dead first. */
export function withLock(work) {
  const path = join(STATE, 'setup.lock');
  mkdirSync(STATE, { recursive: true });
  for (let said = false; !takeLock(path); said = true) {
    if (!said) say('another setup of this folder is running; waiting for it ...');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  }
  try {
    return work();
  } finally {
    rmSync(path, { force: true });
  }
}

function takeLock(path) {
  try {
    writeFileSync(path, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }
  if (!isAlive(readLock(path))) rmSync(path, { force: true });
  return false;
}

function readLock(path) {
  try {
    return Number(readFileSync(path, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return Number.NaN;
    throw error;
  }
}

function isAlive(pid) {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}
