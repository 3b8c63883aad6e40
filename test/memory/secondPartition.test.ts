/** hpZ: the weights once more, sharded over groups of ranks. */
import { expect, test } from 'vitest';
import { parameterTable } from '../../src/catalog/parameters.js';
import { loadItems } from '../../src/memory/load.js';
import { modelStates, type ModelStatesInput } from '../../src/memory/modelStates.js';
import { specs } from '../spec/inputs.js';

const { model } = specs({ model: { hidden_size: 256 } });
const parameters = parameterTable(model);
const WEIGHTS_BYTES = 2 * parameters.numModelParameters;

function input(zero: object, more: Partial<ModelStatesInput> = {}): ModelStatesInput {
  return {
    parameters,
    classOf: model.code.classOf,
    tieWordEmbeddings: false,
    run: { dtype: 'bfloat16', gradientAccumulationSteps: 1 },
    extraLayers: 0,
    numRanks: 8,
    device: 'cuda',
    deepspeed: { zero_optimization: { stage: 3, stage3_param_persistence_threshold: 0, ...zero } },
    ...more,
  };
}

type Items = readonly { readonly name: string; readonly bytes: number }[];
const second = (items: Items): number => items.find(({ name }) => name.startsWith('second partition'))?.bytes ?? 0;
const states = (zero: object, more: Partial<ModelStatesInput> = {}) => modelStates(input(zero, more));

test.each([
  [2, 2],
  [4, 4],
  [8, 8],
  // As large as there are ranks at most.
  [16, 8],
])('of groups of %i a rank has one %ith of the weights more', (size, parts) => {
  expect(second(states({ zero_hpz_partition_size: size }).device)).toBeCloseTo(WEIGHTS_BYTES / parts, -1);
});

test('without it, and below stage 3, there is none', () => {
  expect(second(states({}).device)).toBe(0);
  expect(second(states({ zero_hpz_partition_size: 1 }).device)).toBe(0);
  expect(states({ stage: 2, zero_hpz_partition_size: 4 })).toEqual(states({ stage: 2 }));
});

test('it is where the weights are: on the host in pinned blocks of up to twice its size', () => {
  const there = states({ zero_hpz_partition_size: 4, offload_param: { device: 'cpu' } });
  expect(second(there.device)).toBe(0);
  expect(second(there.pinned)).toBeCloseTo((2 * WEIGHTS_BYTES) / 4, -1);
});

test('start-up has it from the first unit on', () => {
  const load = (zero: object): number => {
    const { kept, passing } = loadItems({ ...input(zero), deviceBytes: 1e12 }).device;
    return [...kept, ...passing].reduce((sum, { bytes }) => sum + bytes, 0);
  };
  expect(load({ zero_hpz_partition_size: 2 }) - load({})).toBeCloseTo(WEIGHTS_BYTES / 2, -1);
});
