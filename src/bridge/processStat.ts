/** What Linux tells of a process in /proc; see proc_pid_stat(5). */

import { readdirSync, readFileSync } from 'node:fs';

export interface ProcessStat {
  /** R runs or waits for a processor, D waits for a disk, S sleeps, Z has ended and waits for its parent to read its exit code. */
  readonly state: string;
  readonly group: number;
  /** User and system time of all its threads. */
  readonly cpuTicks: number;
}

/** Null when the process is gone. */
export function readProcessStat(pid: number): ProcessStat | null {
  return readStatFile(`/proc/${pid}/stat`);
}

/** Of every thread of a process; empty when it is gone. */
export function readThreadStates(pid: number): readonly string[] {
  const threads = orIfGone(() => readdirSync(`/proc/${pid}/task`), []);
  return threads.flatMap((thread) => readStatFile(`/proc/${pid}/task/${thread}/stat`)?.state ?? []);
}

function readStatFile(path: string): ProcessStat | null {
  const text = orIfGone(() => readFileSync(path, 'utf8'), null);
  if (text === null) return null;
  // The command name is in parentheses and may itself hold spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0] ?? '', group: Number(fields[2]), cpuTicks: Number(fields[11]) + Number(fields[12]) };
}

function orIfGone<T, E>(read: () => T, otherwise: E): T | E {
  try {
    return read();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return otherwise;
    throw error;
  }
}
