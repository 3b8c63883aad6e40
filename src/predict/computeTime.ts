/** What computing alone takes: nothing is simulated, and no schedule of these ops is faster. */
import type { Turn } from '../schedule/program.js';
import { sectionNamed } from '../schedule/schedule.js';
import { opCosts } from './cost.js';
import { deviceOf } from './device.js';
import type { PredictInput } from './input.js';
import { runsOf } from './totals.js';

/** The first stream of every plan. */
const COMPUTE = 0;

/**
 * By section the seconds of a call on the compute stream; where one thread executes all streams, on all of them. Of sections that the plan
 * calls: those that ZeRO runs have no price.
 */
export function callSeconds(input: PredictInput): (section: string) => number {
  const { streams, sections, cluster } = input;
  const costs = opCosts(input);
  const { serial } = deviceOf(cluster, streams);
  const counted = (stream: string): boolean => serial || stream === streams[COMPUTE];
  const known = new Map<string, number>();
  return (section) => {
    const found =
      known.get(section) ??
      sectionNamed(sections, section).ops.reduce((sum, op) => (counted(op.stream) ? sum + costs(op).seconds : sum), 0);
    known.set(section, found);
    return found;
  };
}

/** Of one optimizer step, from those of a call of each section. */
export function computeSeconds(turns: readonly Turn[], input: Pick<PredictInput, 'run'>, ofCall: (section: string) => number): number {
  let total = 0;
  for (const turn of turns) {
    for (const { owner, section } of turn.calls) if (owner === 'plan') total += runsOf(turn, input) * ofCall(section);
  }
  return total;
}
