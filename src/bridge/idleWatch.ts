/** Tells a process that hangs from one that is slow: progress is processor time, not time on a clock. */

import { readProcessStat, readThreadStates } from './processStat.js';

const TICKS = 20;

/**
 * Calls `onIdle` once, when the process has used no processor time and waited for none, nor for a disk, for `idleSeconds`. These are
 * counted in ticks of this process: while it is suspended or gets no processor itself, no time passes. Elsewhere than on Linux every
 * tick counts as idle. Returns what ends the watch.
 */
export function watchIdle(pid: number, idleSeconds: number, onIdle: () => void): () => void {
  let numIdle = 0;
  let lastTicks = -1;
  const timer = setInterval(
    () => {
      const cpuTicks = readProcessStat(pid)?.cpuTicks ?? lastTicks;
      const moves = cpuTicks !== lastTicks || readThreadStates(pid).some((state) => state === 'R' || state === 'D');
      lastTicks = cpuTicks;
      numIdle = moves ? 0 : numIdle + 1;
      if (numIdle < TICKS) return;
      clearInterval(timer);
      onIdle();
    },
    (idleSeconds * 1000) / TICKS,
  );
  return () => clearInterval(timer);
}
