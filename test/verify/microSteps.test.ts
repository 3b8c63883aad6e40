/** Streams are not joined between micro-steps: a copy that one leaves behind may meet the first calls of the next. */
import { describe, expect, it } from 'vitest';
import { layoutSchedule } from '../../src/address/layout.js';
import type { Call } from '../../src/schedule/program.js';
import type { Schedule } from '../../src/schedule/schedule.js';
import { verifySchedule } from '../../src/verify/verify.js';
import { issue, races } from '../address/timing.js';
import { EVERY_KIND, smallContext, smallSchedule } from '../schedule/context.js';

const isOwn = ({ owner }: Call): boolean => owner === 'plan';

/** Every schedule with one bit of one mask missing, but for the first call's. */
function withoutABit(schedule: Schedule): readonly Schedule[] {
  const { turns } = schedule.programs.train;
  const [first] = turns.flatMap(({ calls }) => calls).filter(isOwn);
  return turns.flatMap((turn, at) =>
    turn.calls.flatMap((call) =>
      isOwn(call) && call !== first
        ? call.waits.flatMap((mask, s) =>
            schedule.streams.flatMap((_, t) => ((mask >> t) & 1 ? [replace(schedule, at, call, call.waits.with(s, mask - 2 ** t))] : [])),
          )
        : [],
    ),
  );
}

function replace(schedule: Schedule, at: number, call: Call, waits: readonly number[]): Schedule {
  const turns = schedule.programs.train.turns.map((turn, i) =>
    i === at ? { ...turn, calls: turn.calls.map((one) => (one === call ? { ...one, waits } : one)) } : turn,
  );
  return { ...schedule, programs: { train: { turns } } };
}

describe('a mask without one of its bits', () => {
  it.each(EVERY_KIND)('%s: refused wherever two ops of two micro-steps may then meet, and only there', (_, policy, numChunks, more) => {
    const { model, parameters } = smallContext(policy, numChunks, more);
    const { numLayers, windows, code, tieWordEmbeddings: tied } = model;
    const facts = { numLayers, windows, parameters, classOf: code.classOf, tied };
    for (const damaged of withoutABit(layoutSchedule(smallSchedule(policy, numChunks, more)))) {
      const meet = races(damaged, issue(damaged, 'beforeFirstOp')).length > 0;
      expect(verifySchedule({ ...damaged, ...facts }).length > 0).toBe(meet);
    }
  });
});
