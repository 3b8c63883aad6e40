/** One call of a section alone, with the times of its ops: what drawings and traces are made from. */
import type { Section } from '../schedule/op.js';
import { type OpTimes, runCall } from './callRun.js';
import { opCosts } from './cost.js';
import { deviceOf } from './device.js';
import { runDuplexCall } from './duplexRun.js';
import type { PredictInput } from './input.js';
import { type SectionArrays, toArrays } from './sectionArrays.js';

export interface SectionTimeline extends OpTimes {
  readonly makespanSeconds: number;
}

/** All streams are free at 0, and the host turns to the section then. */
export function simulateSection(section: Section, input: PredictInput): SectionTimeline {
  const arrays = toArrays(section, input.streams, opCosts(input));
  const device = deviceOf(input.cluster, input.streams);
  const times = { startSeconds: new Float64Array(arrays.numOps), endSeconds: new Float64Array(arrays.numOps) };
  if (device.serial) return { ...times, makespanSeconds: oneAfterAnother(arrays, times) };
  const numStreams = input.streams.length;
  const entry = { free: new Float64Array(numStreams), busyUntil: new Float64Array(numStreams), host: 0 };
  const { duplex } = device;
  const run =
    duplex === undefined ? runCall(arrays, arrays.seconds, entry, times) : runDuplexCall(arrays, arrays.seconds, entry, times, duplex);
  return { ...times, makespanSeconds: Math.max(0, run.lastEnd) };
}

function oneAfterAnother({ seconds, numOps }: SectionArrays, { startSeconds, endSeconds }: OpTimes): number {
  let now = 0;
  for (let i = 0; i < numOps; i++) {
    startSeconds[i] = now;
    now += seconds[i] ?? 0;
    endSeconds[i] = now;
  }
  return now;
}
