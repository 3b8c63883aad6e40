/**
 * A shell that lives a moment longer than this process, and kills what it leaves behind: whole groups, whatever they do. A rank also ends by
 * itself when its controller is gone, but only once it has begun to look, and its children know nothing of that.
 */

import { type ChildProcess, spawn } from 'node:child_process';

/** A process id, or that of a group with a minus sign, after `+` while it is to be killed and `-` when it is gone. The input ends with its writer. */
const SCRIPT = `
ids=' '
while read -r sign id; do
  case $sign in
    +) ids="$ids$id " ;;
    -) ids="\${ids%%" $id "*} \${ids#*" $id "}" ;;
  esac
done
for id in $ids; do kill -KILL "$id"; done
`;

const guarded = new Set<number>();
let shell: ChildProcess | null = null;

/** Has a process killed when this one is gone, however it ended; a group where `id` is negative. */
export function guard(id: number): void {
  if (guarded.has(id)) return;
  guarded.add(id);
  // A shell that somebody has killed is replaced by the next.
  if (shell === null) for (const one of guarded) tell('+', one);
  else tell('+', id);
}

/** It has ended: another process may get its number. */
export function release(id: number): void {
  if (guarded.delete(id) && shell !== null) tell('-', id);
}

function tell(sign: '+' | '-', id: number): void {
  shell ??= start();
  shell.stdin?.write(`${sign} ${id}\n`);
}

function start(): ChildProcess {
  // Its own session: what is sent to this process's group, from a terminal or a scheduler, is not for it.
  const child = spawn('/bin/sh', ['-c', SCRIPT], { detached: true, stdio: ['pipe', 'ignore', 'ignore'], cwd: '/' });
  const forget = (): void => {
    if (shell === child) shell = null;
  };
  child.once('exit', forget).once('error', forget);
  child.stdin.on('error', forget);
  child.unref();
  (child.stdin as unknown as { unref(): void }).unref();
  return child;
}
