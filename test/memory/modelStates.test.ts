/**
 * Against DeepSpeed 0.19.8's own engine, traced at full scale (Llama-3-8B in bf16, FusedAdam, reduce bucket 5e8): bytes per
 * parameter when idle, at the peak of backward and at the peak of the step.
 */
import { describe, expect, test } from 'vitest';
import { parameterTable, parseModel } from '../../src/catalog/index.js';
import type { MemoryItem } from '../../src/memory/ledger.js';
import { modelStates, type ModelStatesInput } from '../../src/memory/modelStates.js';
import { specs } from '../spec/inputs.js';

const model = parseModel('examples/llama-3-8b.json');
const parameters = parameterTable(model);

function states(zero: object, numRanks: number, more: Partial<ModelStatesInput> = {}, dataTypes: object = {}) {
  const stage = (zero as { stage: 0 | 1 | 2 | 3 }).stage;
  return modelStates({
    parameters,
    numLayers: model.numLayers,
    tieWordEmbeddings: false,
    run: { ...specs().run, dtype: 'bfloat16', zeroStage: stage },
    numRanks,
    deepspeed: { zero_optimization: zero, data_types: dataTypes },
    ...more,
  });
}

const perParameter = (...groups: readonly (readonly MemoryItem[])[]): number =>
  groups.flat().reduce((sum, { bytes }) => sum + bytes, 0) / parameters.numModelParameters;

describe.each([
  [{ stage: 0 }, 64, {}, 14, 16.24, 24],
  [{ stage: 1 }, 64, {}, 2.19, 4.44, 2.44],
  [{ stage: 1 }, 4, {}, 5, 7.64, 7.01],
  [{ stage: 1 }, 64, { grad_accum_dtype: 'fp32' }, 6.19, 10.19, 8.19],
  [{ stage: 2 }, 64, {}, 2.19, 2.58, 2.44],
  [{ stage: 2 }, 4, {}, 5, 5.77, 7.01],
  [{ stage: 3 }, 64, {}, 0.375, 0.79, 0.47],
  [{ stage: 3 }, 4, {}, 4.125, 4.54, 4.87],
  [{ stage: 3 }, 64, { grad_accum_dtype: 'fp32' }, 0.406, 0.83, 0.47],
  [{ stage: 2, offload_optimizer: { device: 'cpu' } }, 64, {}, 2.13, 2.52, 2.13],
  [{ stage: 3, offload_optimizer: { device: 'cpu' } }, 64, {}, 0.156, 0.575, 0.156],
] as const)('%j on %i ranks %j', (zero, numRanks, dataTypes, idle, backward, step) => {
  const { hbm, instants } = states(zero, numRanks, {}, dataTypes);

  test(`${idle} B a parameter when idle`, () => {
    expect(perParameter(hbm)).toBeGreaterThan(idle * 0.995);
    expect(perParameter(hbm)).toBeLessThan(idle * 1.005 + 0.005);
  });

  test(`${backward} B at the peak of backward`, () => {
    const peak = Math.max(...(['loss', 'layerBackward', 'gradientReduce'] as const).map((name) => perParameter(hbm, instants[name])));
    expect(peak).toBeGreaterThan(backward * 0.93);
    expect(peak).toBeLessThan(backward * 1.03 + 0.15);
  });

  test(`${step} B at the peak of the step`, () => {
    const peak = perParameter(hbm, instants.optimizerStep);
    expect(peak).toBeGreaterThan(step * 0.97);
    expect(peak).toBeLessThan(step * 1.05 + 0.15);
  });
});

test('the optimizer on the host: 18 B per owned parameter, in stage 2 also the largest gradient', () => {
  const offload = { device: 'cpu' };
  expect(perParameter(states({ stage: 3, offload_optimizer: offload }, 64).host)).toBeCloseTo(0.281, 3);
  expect(perParameter(states({ stage: 2, offload_optimizer: offload }, 64).host)).toBeCloseTo(0.412, 3);
  expect(states({ stage: 3 }, 64).host).toEqual([]);
});

test('fp32 weights are their own master at stage 0', () => {
  const run = { ...specs().run, dtype: 'float32' as const };
  expect(perParameter(states({ stage: 0 }, 4, { run }).hbm)).toBeCloseTo(12, 6);
  expect(perParameter(states({ stage: 0 }, 4, { run }).instants.layerBackward)).toBeCloseTo(4, 6);
});

test('a segment of several layers gathers a second layer, and a tied gradient is held', () => {
  const zero = { stage: 3, stage3_max_live_parameters: 0 };
  const bytes = (more: Partial<ModelStatesInput>, name: string): number =>
    states(zero, 64, more).instants.layerBackward.find((item) => item.name === name)?.bytes ?? 0;
  const run = { ...specs().run, dtype: 'bfloat16' as const, zeroStage: 3 as const };
  expect(bytes({ run }, 'gathered weights')).toBe(2 * parameters.numLayerElements);
  expect(bytes({ run: { ...run, segmentLayers: 2 } }, 'gathered weights')).toBe(4 * parameters.numLayerElements);
  expect(bytes({ run, tieWordEmbeddings: true }, 'tied gradient of lm_head')).toBe(2 * parameters.numEmbedElements);
  expect(bytes({ run }, 'tied gradient of lm_head')).toBe(0);
});

test('small weights stay whole below the persistence threshold', () => {
  const item = states({ stage: 3 }, 64).hbm.find(({ name }) => name === 'persistent small weights');
  expect(item?.bytes).toBe(2 * 4096 * (2 * 32 + 1));
  expect(states({ stage: 3, stage3_param_persistence_threshold: 0 }, 64).hbm.map(({ name }) => name)).not.toContain(
    'persistent small weights',
  );
});
