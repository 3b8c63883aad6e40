import { expect, test } from 'vitest';
import { layoutSchedule } from '../../src/address/layout.js';
import { stepTime } from '../../src/predict/stepTime.js';
import { buildSchedule } from '../../src/schedule/build.js';
import { mostRangeChunks } from '../../src/schedule/policies/index.js';
import type { Strategy } from '../../src/spec/strategy.js';
import { candidates } from '../../src/strategy/candidates.js';
import { estimateTimeSoon } from '../../src/strategy/estimateTime.js';
import { policyContext, scratchFormula, type Setting, settingOf } from '../../src/strategy/setting.js';
import { specs } from '../spec/inputs.js';

/** More than it builds. */
const NUM_CHUNKS = 136;

/** Chunks so short that streams mostly wait for each other and for the host. */
test.each(['fpdt', 'auto'])('a step that mostly waits takes what is soon estimated to a twentieth: %s', (policy) => {
  const run = { policy, seqLen: 512 * NUM_CHUNKS, numChunks: NUM_CHUNKS };
  const { deepspeed, ...rest } = specs({ cluster: { gpu: 'a100-80gb' }, run });
  const setting = settingOf({ ...rest, deepspeed: deepspeed.config });
  const all = candidates({ model: setting.model, run: setting.run, pools: { device: 'hbm', pinned: 'host' } }).flat();
  const chosen = all.filter((_, number) => number % Math.ceil(all.length / 3) === 0);
  expect(chosen.length).toBeGreaterThan(0);
  for (const strategy of chosen) {
    const error = estimateTimeSoon(setting, strategy) / simulated(setting, strategy) - 1;
    expect(Math.abs(error), JSON.stringify(strategy)).toBeLessThan(0.05);
  }
});

/** Of the whole program. */
function simulated(setting: Setting, strategy: Strategy): number {
  const rangeChunks = mostRangeChunks(strategy);
  const schedule = buildSchedule({ ...policyContext(setting, strategy), rangeChunks }, setting.machine, scratchFormula(setting));
  return stepTime({ ...setting, ...layoutSchedule(schedule) }).seconds;
}
