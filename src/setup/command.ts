/** Commands of setup: what they say goes into a log, and a failure is one error with what to do. */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { FpdtError } from '../spec/errors.js';

export interface Command {
  readonly file: string;
  readonly args: readonly string[];
  /** The file that takes its output. */
  readonly log: string;
  readonly environment?: Readonly<Record<string, string>>;
}

/** Throws `setup-failed` with the last lines of the output and a hint that fits them. */
export function runLogged({ file, args, log, environment = {} }: Command): void {
  const descriptor = openSync(log, 'w');
  const { status, signal, error } = spawnSync(file, args, {
    env: { ...process.env, ...environment },
    stdio: ['ignore', descriptor, descriptor],
  });
  closeSync(descriptor);
  if (status === 0) return;
  const said = readFileSync(log, 'utf8');
  const reason = error?.message ?? (signal === null ? `exit code ${status}` : `signal ${signal}`);
  const what = [file, ...args].slice(0, 4).join(' ');
  throw new FpdtError(`${what} ... failed (${reason})`, {
    code: 'setup-failed',
    hint: `${hintFor(`${said}\n${reason}`)}; all that it said: ${log}`,
    details: { stderrTail: said.trim().split('\n').slice(-12).join('\n') },
  });
}

/** Output of a short command, or undefined where it cannot run or fails. */
export function outputOf(file: string, args: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  return status === 0 ? stdout.trim() : undefined;
}

const HINTS = [
  [
    /ENOSPC|No space left on device|errno 28|os error 28/i,
    'the disk is full: free some, or make it elsewhere: npx fpdt setup --into FOLDER',
  ],
  [/Disk quota exceeded|errno 122/i, 'your quota is used up: make it elsewhere: npx fpdt setup --into FOLDER'],
  [/EACCES|Permission denied|EPERM|Read-only file system/i, 'a file is not writable: make it elsewhere: npx fpdt setup --into FOLDER'],
  [
    /requires a different Python|requires-python/i,
    'this Python is too old or too new for a pinned package: npx fpdt setup --python python3.11',
  ],
  [
    /Temporary failure in name resolution|Name or service not known|NewConnectionError|ConnectTimeout|ReadTimeout|Connection (refused|reset|aborted)|timed out|dns error|error sending request|ProxyError|ENOTFOUND|EAI_AGAIN|Network is unreachable/i,
    'the package index could not be reached: check network and proxy (PIP_INDEX_URL, UV_DEFAULT_INDEX, HTTPS_PROXY) and start again; what is there is kept',
  ],
  [
    /No matching distribution found|no version of|not found in the package registry/i,
    'the package index has no build of that version for this Python: npx fpdt setup --python python3.11, or for torch one more index (PIP_EXTRA_INDEX_URL; UV_INDEX with --uv)',
  ],
  [/ENOENT/, 'that program is not there: install it, or name another'],
] as const;

export function hintFor(said: string): string {
  return HINTS.find(([pattern]) => pattern.test(said))?.[1] ?? 'mend what the lines above name and start again; what is there is kept';
}
