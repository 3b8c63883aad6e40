/** CPU time of the verifier's replay in native code and of its twin, on the calls of one long plan, in this process and warm. */
import { replayNow } from '../src/machine/replays.js';
import type { ExecutionPlan } from '../src/index.js';
import { completionClocks } from '../src/address/clocks.js';
import { type CallFrame, frameOf } from '../src/verify/callFrame.js';
import { placeCalls } from '../src/verify/calls.js';
import { contextOf } from '../src/verify/context.js';
import { type FlatSection, flatten } from '../src/verify/flat.js';
import { replayCall } from '../src/verify/replay.js';
import { columnsOf } from '../src/verify/replayColumns.js';
import { Violations } from '../src/verify/violation.js';

const NUM_RUNS = 15;

export interface ReplayTimes {
  readonly twinMs: number;
  /** Null where there is no addon. */
  readonly nativeMs: number | null;
}

/** Of one call of each section that is long enough for native code, all together: the best of some runs, taken in turn. */
export function replayTimes(plan: ExecutionPlan, leastOps: number): ReplayTimes {
  const calls = framesOf(plan, leastOps).map((frame) => ({ frame, columns: columnsOf(frame) }));
  const isThere = calls.every(({ columns }) => replayNow(columns) !== undefined);
  let twinMs = Number.POSITIVE_INFINITY;
  let nativeMs = Number.POSITIVE_INFINITY;
  const here = (): void => {
    for (const { frame } of calls) replayHere(frame);
  };
  const natively = (): void => {
    for (const { columns } of calls) replayNow(columns);
  };
  for (let i = 0; i < NUM_RUNS; i++) {
    twinMs = Math.min(twinMs, cpuMs(here));
    if (isThere) nativeMs = Math.min(nativeMs, cpuMs(natively));
  }
  return { twinMs, nativeMs: isThere ? nativeMs : null };
}

/** As native code does: clocks, which the verifier finds once for all calls of a section, with each. */
function replayHere(frame: CallFrame): void {
  completionClocks(frame.flat, frame.context.numStreams);
  replayCall(frame);
}

function cpuMs(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

function framesOf(plan: ExecutionPlan, leastOps: number): readonly CallFrame[] {
  const { numLayers, windows, code, tieWordEmbeddings } = plan.model;
  const facts = { numLayers, windows, parameters: plan.parameters, classOf: code.classOf, tied: tieWordEmbeddings };
  const context = contextOf({ ...plan, ...facts }, new Violations(1));
  const flats = new Map(plan.sections.map((section) => [section.name, flatten(section, context)] as const));
  const seen = new Set<FlatSection>();
  return placeCalls(flats, context).flatMap(({ call, flat, name }) => {
    if (call.owner !== 'plan' || flat.numOps < leastOps || seen.has(flat)) return [];
    seen.add(flat);
    return [frameOf(flat, call.args, name, context)];
  });
}
