import { expect, test } from 'vitest';
import { layoutSchedule } from '../../src/address/layout.js';
import { stepTime } from '../../src/predict/stepTime.js';
import { buildSchedule } from '../../src/schedule/build.js';
import { mostRangeChunks } from '../../src/schedule/policies/index.js';
import type { Strategy } from '../../src/spec/strategy.js';
import { candidates } from '../../src/strategy/candidates.js';
import { estimateTime, estimateTimeSoon } from '../../src/strategy/estimateTime.js';
import { policyContext, scratchFormula, type Setting, settingOf } from '../../src/strategy/setting.js';
import { specs } from '../spec/inputs.js';
import { inputOf, MODEL } from './searchInputs.js';

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

const IN_GROUPS: Strategy = {
  kind: 'strategy',
  policy: 'auto',
  numChunks: 32,
  chunkTokens: 32768,
  localChunkTokens: 32768,
  kvTileChunks: 1,
  numLossTiles: 32,
  numTokenTiles: 1,
  prefetchDepth: 2,
  hiddenGradients: 'host',
  layers: [
    {
      layers: [0, 6],
      keyValues: 'host',
      keyValueGradients: 'hbm',
      attentionOutput: 'hbm',
      checkpoints: 'host',
      backwardOrder: 'queryOuterDescending',
      segments: [2, 2, 2],
    },
  ],
  headGroups: 2,
};

/** What seven chunks to nine wait for looks like a square of their number, which it is not: a thirteenth of the step at 32 chunks. */
test('what a few chunks wait for is not taken for more than they tell', () => {
  const setting = settingOf(inputOf({ run: { seqLen: '1M' }, cluster: { gpus: 1, hostBytes: '400G' } }));
  expect(estimateTime(setting, IN_GROUPS) / simulated(setting, IN_GROUPS)).toBeCloseTo(1, 2);
});

/** It grows by less from eight to nine than from seven to eight, and by more from then on: a twenty-sixth of the step at 32 chunks. */
test('nor for less', () => {
  const model = { ...MODEL, num_key_value_heads: 16 };
  const setting = settingOf(inputOf({ model, run: { seqLen: '128K' }, cluster: { gpus: 4, hostBytes: '400G' } }));
  const onDevice = { keyValues: 'hbm', attentionOutput: 'hbm', backwardOrder: 'queryOuterDescending' } as const;
  const strategy: Strategy = {
    ...IN_GROUPS,
    chunkTokens: 4096,
    localChunkTokens: 1024,
    numLossTiles: 1,
    layers: [
      { ...onDevice, layers: [0, 1], keyValueGradients: 'host', checkpoints: 'hbm', segments: [1] },
      { ...onDevice, layers: [1, 6], keyValueGradients: 'hbm', checkpoints: 'host', segments: [1, 1, 1, 1, 1] },
    ],
    headGroups: 4,
  };
  expect(estimateTime(setting, strategy) / simulated(setting, strategy)).toBeCloseTo(1, 2);
});

/** Of the whole program. */
function simulated(setting: Setting, strategy: Strategy): number {
  const rangeChunks = mostRangeChunks(strategy);
  const schedule = buildSchedule({ ...policyContext(setting, strategy), rangeChunks }, setting.machine, scratchFormula(setting));
  return stepTime({ ...setting, ...layoutSchedule(schedule) }).seconds;
}
