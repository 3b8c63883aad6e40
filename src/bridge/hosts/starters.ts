/** How agents are started on other hosts: a command for each, as ssh takes it, or one for all, as srun does. */

import { execa } from 'execa';
import { FpdtError } from '../../spec/errors.js';
import { forgetGroup, isGroupAlive, killAtExit, signalGroup } from '../processGroup.js';
import { createInterface } from 'node:readline';
import type { RankExit } from '../ranks.js';

const TAIL_LINES = 20;
/** Never asks; gives a host up that does not answer, and one that has stopped answering. */
export const DEFAULT_SSH = 'ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4';
export const DEFAULT_SRUN = 'srun';

/** A process of this host that stands for one or more agents: its standard input is theirs, and they end with it. */
export interface Starter {
  /** For people. */
  readonly name: string;
  readonly exited: Promise<RankExit>;
  readonly exit: () => RankExit | null;
  readonly lastLine: () => string;
  readonly kill: () => void;
}

/** `ssh HOST "exec AGENT"`, with words quoted for the shell there. */
export function startBySsh(ssh: string, host: string, agent: readonly string[], ticket: string, onLine: (line: string) => void): Starter {
  return start(host, [...words(ssh, '--ssh'), host, `exec ${agent.map(quoted).join(' ')}`], ticket, onLine);
}

/** One agent on each of the hosts of the allocation that this process is in. */
export function startBySrun(
  srun: string,
  numNodes: number,
  agent: readonly string[],
  ticket: string,
  onLine: (line: string) => void,
): Starter {
  // A step has one processor a task unless it asks for those of the job.
  const cpus = process.env['SLURM_CPUS_ON_NODE'];
  const flags = [
    `--nodes=${numNodes}`,
    `--ntasks=${numNodes}`,
    '--ntasks-per-node=1',
    '--kill-on-bad-exit=1',
    '--overlap',
    '--cpu-bind=none',
  ];
  return start(
    'srun',
    [...words(srun, '--srun-command'), ...flags, ...(cpus === undefined ? [] : [`--cpus-per-task=${cpus}`]), ...agent],
    ticket,
    onLine,
  );
}

function start(name: string, command: readonly string[], ticket: string, onLine: (line: string) => void): Starter {
  const [file = '', ...args] = command;
  const child = execa(file, args, {
    detached: true, // Its own group, as ranks have: Ctrl-C reaches only the controller.
    buffer: false,
    reject: false,
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  const { pid } = child;
  if (pid !== undefined) killAtExit(pid);
  const tail: string[] = [];
  const hear = (line: string): void => {
    if (tail.push(line) > TAIL_LINES) tail.shift();
    onLine(line);
  };
  for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', hear);
  let exit: RankExit | null = null;
  const exited = new Promise<RankExit>((resolve) => {
    const settle = (found: RankExit): void => {
      exit ??= found;
      resolve(exit);
    };
    child.once('exit', (code, signal) => settle({ code, signal, startError: null }));
    child.once('error', (error) => settle({ code: null, signal: null, startError: error.message }));
  });
  // Stays open: where it ends, agents end. One that is gone reads nothing, which its exit tells.
  child.stdin.on('error', () => undefined);
  child.stdin.write(`${ticket}\n`);
  return {
    name,
    exited,
    exit: () => exit,
    lastLine: () => tail.findLast((line) => line.trim() !== '') ?? '',
    kill: () => {
      if (pid === undefined) return;
      if (isGroupAlive(pid)) signalGroup(pid, 'SIGKILL');
      forgetGroup(pid);
    },
  };
}

/** A command as a user gives it: words, of which none has spaces in it. */
function words(command: string, option: string): readonly string[] {
  const found = command.trim().split(/\s+/);
  if (found[0] === '') throw new FpdtError(`${option} is empty`, { code: 'usage', hint: `give a command, or leave ${option} out` });
  return found;
}

/** For a shell. */
export function quoted(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
