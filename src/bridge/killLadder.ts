/** Stops ranks for good: ask, then SIGTERM, then SIGKILL of every process group, until no process is left. */

import { setTimeout as sleep } from 'node:timers/promises';
import { FpdtError } from '../spec/errors.js';
import { forgetGroup, isGroupAlive, signalGroup } from './processGroup.js';

const POLL_MS = 20;

/** How long each rung may take. */
export interface LadderTimes {
  readonly askMs: number;
  readonly termMs: number;
  readonly killMs: number;
}
const LADDER_TIMES: LadderTimes = { askMs: 1000, termMs: 1000, killMs: 15_000 };

/**
 * `ask` requests an orderly end, e.g. by an abort message, and says whether there was anyone to ask.
 * Throws `process-left` when SIGKILL did not help.
 */
export async function stopGroups(groups: readonly number[], ask: () => boolean, times: LadderTimes = LADDER_TIMES): Promise<void> {
  const isAsked = !(await areGone(groups, 0)) && ask();
  if (await areGone(groups, isAsked ? times.askMs : 0)) return;
  for (const group of groups) signalGroup(group, 'SIGTERM');
  if (await areGone(groups, times.termMs)) return;
  for (const group of groups) signalGroup(group, 'SIGKILL');
  if (await areGone(groups, times.killMs)) return;
  const left = groups.filter(isGroupAlive);
  throw new FpdtError(`process groups ${left.join(', ')} survived SIGKILL`, {
    code: 'process-left',
    hint: 'a process in uninterruptible sleep ends when its device or file system answers',
    details: { groups: left },
  });
}

async function areGone(groups: readonly number[], limitMs: number): Promise<boolean> {
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    if (!groups.some(isGroupAlive)) {
      for (const group of groups) forgetGroup(group);
      return true;
    }
    if (waitedMs >= limitMs) return false;
    await sleep(POLL_MS);
  }
}
