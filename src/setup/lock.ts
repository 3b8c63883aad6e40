/** Keeps two setups of one folder apart: the second is refused, and takes over from a dead first. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { FpdtError } from '../spec/errors.js';

/** `path` is a file that holds the number of the process while it works. Throws `setup-running`. */
export function withLock<T>(path: string, work: () => T): T {
  if (!take(path) && !(isStale(path) && take(path))) {
    throw new FpdtError(`another setup of this folder is running: process ${holder(path)}`, {
      code: 'setup-running',
      hint: 'wait for it, and start again if it failed',
      details: { path },
    });
  }
  try {
    return work();
  } finally {
    rmSync(path, { force: true });
  }
}

function take(path: string): boolean {
  try {
    writeFileSync(path, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function isStale(path: string): boolean {
  if (isAlive(holder(path))) return false;
  rmSync(path, { force: true });
  return true;
}

function holder(path: string): number {
  try {
    return Number(readFileSync(path, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Number.NaN;
    throw error;
  }
}

function isAlive(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
