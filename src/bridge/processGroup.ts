/** Processes of a group: whether one is left, and signalling all of them. */

import { readdirSync } from 'node:fs';
import { readProcessStat } from './processStat.js';
import { guard, release } from './warden.js';

const liveGroups = new Set<number>();
let hasExitHook = false;

/** Kill this group when this process ends without having stopped it: at its exit, or by the warden where it was killed. */
export function killAtExit(group: number): void {
  liveGroups.add(group);
  guard(-group);
  if (hasExitHook) return;
  hasExitHook = true;
  process.on('exit', () => {
    for (const one of liveGroups) signalGroup(one, 'SIGKILL');
  });
}

export function forgetGroup(group: number): void {
  liveGroups.delete(group);
  release(-group);
}

/** False when no process of the group is left. */
export function signalGroup(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-group, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/** Whether a process of the group still runs. A zombie does not: it only waits for its parent to read its exit code. */
export function isGroupAlive(group: number): boolean {
  if (!signalGroup(group, 0)) return false;
  return process.platform !== 'linux' || runningMembers(group).length > 0;
}

function runningMembers(group: number): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.map(Number).filter((pid) => {
    const stat = readProcessStat(pid);
    return stat !== null && stat.group === group && stat.state !== 'Z' && stat.state !== 'X';
  });
}
