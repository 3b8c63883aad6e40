/**
 * Against DeepSpeed 0.19.8's own engine, traced at full scale (Llama-3-8B in bf16, FusedAdam, reduce bucket 5e8): bytes per
 * parameter when idle, at the peak of backward and at the peak of the step.
 */
import { describe, expect, test } from 'vitest';
import { parameterTable, parseModel } from '../../src/catalog/index.js';
import { numWeightElements } from '../../src/catalog/parameters.js';
import { INSTANTS, type InstantName, type MemoryItem } from '../../src/memory/ledger.js';
import { modelStates, type ModelStatesInput } from '../../src/memory/modelStates.js';

const model = parseModel('examples/llama-3-8b.json');
const parameters = parameterTable(model);

const RUN = { dtype: 'bfloat16', gradientAccumulationSteps: 1 } as const;

function states(zero: object, numRanks: number, more: Partial<ModelStatesInput> = {}, dataTypes: object = {}) {
  return modelStates({
    parameters,
    classOf: model.code.classOf,
    tieWordEmbeddings: false,
    run: RUN,
    extraLayers: 0,
    numRanks,
    device: 'cuda',
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
  const { device, instants } = states(zero, numRanks, {}, dataTypes);

  test(`${idle} B a parameter when idle`, () => {
    expect(perParameter(device)).toBeGreaterThan(idle * 0.995);
    expect(perParameter(device)).toBeLessThan(idle * 1.005 + 0.005);
  });

  test(`${backward} B at the peak of backward`, () => {
    const peak = Math.max(...(['loss', 'layerBackward', 'gradientReduce'] as const).map((name) => perParameter(device, instants[name])));
    expect(peak).toBeGreaterThan(backward * 0.93);
    expect(peak).toBeLessThan(backward * 1.03 + 0.15);
  });

  test(`${step} B at the peak of the step`, () => {
    const peak = perParameter(device, instants.optimizerStep);
    expect(peak).toBeGreaterThan(step * 0.97);
    expect(peak).toBeLessThan(step * 1.05 + 0.15);
  });
});

test('the optimizer on the host: 18 B per owned parameter, in stage 2 also the largest gradient', () => {
  const offload = { device: 'cpu', pin_memory: false };
  expect(perParameter(states({ stage: 3, offload_optimizer: offload }, 64).pinned)).toBeCloseTo(0.281, 3);
  expect(perParameter(states({ stage: 2, offload_optimizer: offload }, 64).pinned)).toBeCloseTo(0.412, 3);
  expect(states({ stage: 3 }, 64).pinned).toEqual([]);
});

describe('float16', () => {
  const run = { ...RUN, dtype: 'float16' as const };

  test.each([0, 1, 2, 3])('has the states of bfloat16 at stage %i', (stage) => {
    for (const dataTypes of stage === 1 ? [{}] : [{}, { grad_accum_dtype: 'fp32' }]) {
      expect(states({ stage }, 4, { run }, dataTypes)).toEqual(states({ stage }, 4, {}, dataTypes));
    }
  });

  test('accumulates in fp32 at stage 1 beside the class of ZeRO: 4 B a gradient, in its shard too', () => {
    const { device, instants } = states({ stage: 1 }, 64, { run }, { grad_accum_dtype: 'fp32' });
    expect(perParameter(device)).toBeCloseTo(perParameter(states({ stage: 1 }, 64).device), 6);
    const gradients = (items: readonly MemoryItem[]) => perParameter(items.filter(({ name }) => name === 'gradients'));
    expect(gradients(instants.layerBackward)).toBeCloseTo(4, 6);
    expect(gradients(states({ stage: 1 }, 64).instants.layerBackward)).toBeCloseTo(2, 6);
  });
});

test('fp32 weights are their own master at stage 0', () => {
  const run = { ...RUN, dtype: 'float32' as const };
  expect(perParameter(states({ stage: 0 }, 4, { run }).device)).toBeCloseTo(12, 6);
  expect(perParameter(states({ stage: 0 }, 4, { run }).instants.layerBackward)).toBeCloseTo(4, 6);
});

describe('what is gathered at stage 3', () => {
  // Its two norms are whole all the time.
  const layerElements = numWeightElements(parameters.layers[0]?.weights ?? []) - 2 * 4096;
  const zero = { stage: 3, stage3_max_live_parameters: 0 };
  const bytes = (more: Partial<ModelStatesInput>, instant: InstantName, name: string): number =>
    states(zero, 64, more).instants[instant].find((item) => item.name === name)?.bytes ?? 0;

  test('is the layer at work, and in backward the layers that are rebuilt beside it', () => {
    expect(bytes({}, 'layerBackward', 'gathered weights')).toBe(2 * layerElements);
    expect(bytes({ extraLayers: 2 }, 'layerBackward', 'gathered weights')).toBe(3 * 2 * layerElements);
    expect(bytes({ extraLayers: 2 }, 'layerForward', 'gathered weights')).toBe(2 * layerElements);
  });

  test('for the loss of a tied model is the embedding, whose gradient waits in the arena until its own turn', () => {
    const tied = parameterTable(parseModel({ ...model.hfConfig, tie_word_embeddings: true }));
    const more = { parameters: tied, tieWordEmbeddings: true };
    expect(bytes(more, 'loss', 'gathered weights')).toBe(2 * parameters.numEmbedElements);
    expect(bytes(more, 'loss', 'gradients being reduced')).toBe(2 * 4096);
    expect(bytes({}, 'loss', 'gradients being reduced')).toBe(2 * parameters.numHeadElements);
    expect(bytes(more, 'gradientReduce', 'gradients being reduced')).toBe(2 * parameters.numEmbedElements);
    const names = INSTANTS.flatMap((name) => states(zero, 64, more).instants[name]).map(({ name }) => name);
    expect(names.filter((name) => name.includes('tied'))).toEqual([]);
  });
});

test('gradients of an earlier micro-step are there at the loss', () => {
  const gradients = (gradientAccumulationSteps: number): number =>
    perParameter(states({ stage: 0 }, 4, { run: { ...RUN, gradientAccumulationSteps } }).instants.loss);
  expect(gradients(2)).toBeCloseTo(2, 6);
  expect(gradients(1)).toBeLessThan(0.2);
});

test('small weights stay whole below the persistence threshold', () => {
  const item = states({ stage: 3 }, 64).device.find(({ name }) => name === 'persistent small weights');
  expect(item?.bytes).toBe(2 * 4096 * (2 * 32 + 1));
  expect(states({ stage: 3, stage3_param_persistence_threshold: 0 }, 64).device.map(({ name }) => name)).not.toContain(
    'persistent small weights',
  );
});
