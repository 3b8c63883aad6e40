/** Rank processes: started in a process group each, their output read line by line, their exit seen at once. */

import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { execa } from 'execa';
import { killAtExit } from './processGroup.js';
import type { Environment } from './rankEnvironment.js';

export const TAIL_LINES = 200;

export type LogStream = 'stdout' | 'stderr';

export interface RankExit {
  readonly code: number | null;
  readonly signal: string | null;
  /** Why the process could not be started at all. */
  readonly startError: string | null;
}

export interface RankProcess {
  readonly rank: number;
  /** Also the id of its process group; absent when it could not be started. */
  readonly pid: number | undefined;
  /** Where it is another than this one. */
  readonly host?: string | undefined;
  readonly exited: Promise<RankExit>;
  /** Resolves when stdout and stderr are closed, which a grandchild that holds them delays. */
  readonly closed: Promise<void>;
  exit(): RankExit | null;
  stderrTail(): string;
}

export interface RankCommand {
  readonly rank: number;
  readonly python: string;
  readonly arguments: readonly string[];
  readonly environment: Environment;
  readonly onLine: (stream: LogStream, line: string) => void;
}

export function startRank(command: RankCommand): RankProcess {
  const child = execa(command.python, command.arguments, {
    detached: true, // Its own group: Ctrl-C reaches only the controller, and the whole group can be killed.
    buffer: false,
    reject: false,
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
    env: { ...command.environment },
    extendEnv: false,
  });
  if (child.pid !== undefined) killAtExit(child.pid);
  let exit: RankExit | null = null;
  const exited = new Promise<RankExit>((resolve) => {
    const settle = (found: RankExit): void => {
      exit ??= found;
      resolve(exit);
    };
    child.once('exit', (code, signal) => settle({ code, signal, startError: null }));
    child.once('error', (error) => settle({ code: null, signal: null, startError: error.message }));
  });
  const tail: string[] = [];
  const closed = readLines(child, (stream, line) => {
    if (stream === 'stderr' && tail.push(line) > TAIL_LINES) tail.shift();
    command.onLine(stream, line);
  });
  return { rank: command.rank, pid: child.pid, exited, closed, exit: () => exit, stderrTail: () => tail.join('\n') };
}

async function readLines(
  child: { readonly stdout: Readable; readonly stderr: Readable },
  onLine: (stream: LogStream, line: string) => void,
): Promise<void> {
  const read = async (stream: LogStream): Promise<void> => {
    for await (const line of createInterface({ input: child[stream], crlfDelay: Number.POSITIVE_INFINITY })) {
      onLine(stream, line);
    }
  };
  await Promise.all([read('stdout'), read('stderr')]);
}
