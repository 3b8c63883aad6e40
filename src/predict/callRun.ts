/**
 * One call of a section on streams that run side by side, each in order. An op starts when its stream is free, the host has issued it
 * and what it waits for has ended. All times are relative to one that the caller chooses.
 */
import type { SectionArrays } from './sectionArrays.js';

/** When the call may begin. */
export interface CallEntry {
  /** By stream: free, and done with what the entry mask waits for. */
  readonly free: Float64Array;
  /** When the host turns to the call; far in the past for a host that costs nothing. */
  readonly host: number;
  /** By stream: until when an op of an earlier call runs on it. */
  readonly busyUntil: Float64Array;
}

export interface CallRun {
  /** By stream: end of its last op; what `free` was where it has none. */
  readonly free: Float64Array;
  readonly busySeconds: Float64Array;
  /** By stream: start of its first op. */
  readonly firstStart: Float64Array;
  /** Had the host turned to the call up to then, nothing had started later. */
  readonly latestHost: number;
  /** End of the last op; -Infinity for a section without ops. */
  readonly lastEnd: number;
}

/** Starts and ends by op, where the caller wants them, else room to work in. */
export interface OpTimes {
  readonly startSeconds: Float64Array;
  readonly endSeconds: Float64Array;
}

/** In the order of the section every op knows when what it waits for has ended: no event queue is needed. */
export function runCall(section: SectionArrays, seconds: Float64Array, entry: CallEntry, times: OpTimes): CallRun {
  const { numOps, streams, issueSeconds, waitOffsets, waits } = section;
  const { startSeconds, endSeconds } = times;
  const free = entry.free.slice();
  const busySeconds = new Float64Array(free.length);
  const firstStart = new Float64Array(free.length).fill(Number.POSITIVE_INFINITY);
  let latestHost = Number.POSITIVE_INFINITY;
  let lastEnd = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < numOps; i++) {
    const stream = streams[i] ?? 0;
    const issue = issueSeconds[i] ?? 0;
    let start = Math.max(free[stream] ?? 0, entry.host + issue);
    const lastWait = waitOffsets[i + 1] ?? 0;
    for (let w = waitOffsets[i] ?? 0; w < lastWait; w++) {
      const end = endSeconds[waits[w] ?? 0] ?? 0;
      if (end > start) start = end;
    }
    const duration = seconds[i] ?? 0;
    const end = start + duration;
    startSeconds[i] = start;
    endSeconds[i] = end;
    free[stream] = end;
    busySeconds[stream] = (busySeconds[stream] ?? 0) + duration;
    if (start < (firstStart[stream] ?? 0)) firstStart[stream] = start;
    if (start - issue < latestHost) latestHost = start - issue;
    if (end > lastEnd) lastEnd = end;
  }
  return { free, busySeconds, firstStart, latestHost, lastEnd };
}
