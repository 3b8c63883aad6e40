/** What computing alone takes: nothing is simulated, and no schedule of these ops is faster. */
import { opCosts } from './cost.js';
import { deviceOf } from './device.js';
import type { PredictInput } from './input.js';
import { runsOf } from './totals.js';

/** The first stream of every plan. */
const COMPUTE = 0;

/** Seconds of one optimizer step on the compute stream; where one thread executes all streams, on all of them. */
export function computeSeconds(input: PredictInput): number {
  const { streams, sections, programs, cluster } = input;
  const costs = opCosts(input);
  const { serial } = deviceOf(cluster, streams);
  const counted = (stream: string): boolean => serial || stream === streams[COMPUTE];
  const runs = new Map<string, number>();
  for (const turn of programs.train.turns) {
    for (const { owner, section } of turn.calls) {
      if (owner === 'plan') runs.set(section, (runs.get(section) ?? 0) + runsOf(turn, input));
    }
  }
  return sections.reduce((total, { name, ops }) => {
    const times = runs.get(name) ?? 0;
    if (times === 0) return total;
    return total + times * ops.reduce((sum, op) => (counted(op.stream) ? sum + costs(op).seconds : sum), 0);
  }, 0);
}
