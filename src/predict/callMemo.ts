/**
 * Calls of one class are simulated once. A run depends on its section and on when each stream and the host come to it, relative to
 * one of them; and on those only as far as they held something up.
 */
import type { CallEntry, CallRun } from './callRun.js';
import type { Device } from './device.js';
import type { SectionArrays } from './sectionArrays.js';

/** Entry states that differ by less are one: rounding of times of hours. */
const SAME_SECONDS = 0.5e-9;

interface Known {
  readonly entry: CallEntry;
  readonly run: CallRun;
}

export class CallMemo {
  private readonly known = new Map<SectionArrays, Known[]>();
  private readonly device: Device;
  /** Calls that were simulated. */
  numRuns = 0;

  constructor(device: Device) {
    this.device = device;
  }

  /** `entry` is relative: the same for calls of one class. */
  find(section: SectionArrays, entry: CallEntry, simulate: () => CallRun): CallRun {
    const known = this.known.get(section) ?? [];
    this.known.set(section, known);
    const found = known.find((one) => isSame(one, entry, section, this.device));
    if (found !== undefined) return found.run;
    const run = simulate();
    this.numRuns += 1;
    known.push({ entry, run });
    return run;
  }
}

function isSame(known: Known, entry: CallEntry, { used }: SectionArrays, { duplex }: Device): boolean {
  return (
    used.every((stream) => isSameStart(known.entry.free[stream], known.run.firstStart[stream], entry.free[stream])) &&
    isSameStart(known.entry.host, known.run.latestHost, entry.host) &&
    (duplex === undefined || duplex.streams.every((stream) => isSameTail(known.entry, entry, stream, duplex.streams)))
  );
}

/** What came before it was needed may come at any time up to then; what was waited for must come at the same time. */
function isSameStart(known = 0, needed = 0, now = 0): boolean {
  return needed - known > SAME_SECONDS ? now <= needed : Math.abs(now - known) <= SAME_SECONDS;
}

/** A copy of an earlier call matters only to copies of the other direction that it can meet. */
function isSameTail(known: CallEntry, entry: CallEntry, stream: number, streams: readonly [number, number]): boolean {
  const opposite = streams[0] === stream ? streams[1] : streams[0];
  const tail = ({ busyUntil, free }: CallEntry): number => Math.max(0, (busyUntil[stream] ?? 0) - (free[opposite] ?? 0));
  const [before, now] = [tail(known), tail(entry)];
  if (before === 0 && now === 0) return true;
  return Math.abs((known.busyUntil[stream] ?? 0) - (entry.busyUntil[stream] ?? 0)) <= SAME_SECONDS;
}
