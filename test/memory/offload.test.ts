import { describe, expect, test } from 'vitest';
import { parameterTable } from '../../src/catalog/parameters.js';
import type { ModelStatesInput } from '../../src/memory/modelStates.js';
import { predictRun } from '../../src/predict/predict.js';
import { smallPlan } from '../predict/smallPlan.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import { specs } from '../spec/inputs.js';
import { bytesOf, statesOf } from './states.js';

const { model } = specs({ model: { hidden_size: 256 } });
const parameters = parameterTable(model);
const ON_HOST = { offload_param: { device: 'cpu' } };

const states = (zero: object, more: Partial<ModelStatesInput> = {}, config: JsonObject = {}) => statesOf(model, zero, more, config);

describe('offload_param', () => {
  const shard = (2 * parameters.numModelParameters) / 4;

  test('has the shard of weights on the host: in one pinned block, beside those that they came in', () => {
    const [here, there] = [states({}), states(ON_HOST)];
    expect(bytesOf(here.device, 'weight shard')).toBeCloseTo(shard, -1);
    expect(bytesOf(there.device, 'weight shard')).toBe(0);
    const flat = 2 ** Math.ceil(Math.log2(shard));
    expect(bytesOf(there.pinned, 'weight shard')).toBeCloseTo(flat + 2 * shard, -1);
    expect(bytesOf(states({ offload_param: { device: 'cpu', pin_memory: false } }).pinned, 'weight shard')).toBeCloseTo(shard, -1);
    expect(bytesOf(states(ON_HOST, { device: 'cpu' }).pinned, 'weight shard')).toBeCloseTo(shard, -1);
  });

  test('brings them to the device for each gather, of one rank too, and back after an update there', () => {
    const fetched = (items: ReturnType<typeof states>): number => bytesOf(items.instants.layerForward, 'weights from the host');
    expect([fetched(states({})), fetched(states(ON_HOST, { device: 'cpu' }))]).toEqual([0, 0]);
    expect(fetched(states(ON_HOST))).toBeGreaterThan(0);
    const alone = (zero: object): number => bytesOf(states(zero, { numRanks: 1 }).instants.layerForward, 'gathered weights');
    expect(alone({})).toBe(0);
    expect(alone(ON_HOST)).toBeGreaterThan(0);
    const update = (zero: object): number => bytesOf(states(zero).instants.optimizerStep, 'optimizer temporaries');
    expect(update(ON_HOST) - update({})).toBeCloseTo(shard, -1);
  });

  test('costs the time of the way', () => {
    const gather = (zero: object, cluster: object): number =>
      predictRun(smallPlan({ cluster, run: { dtype: 'bfloat16' }, deepspeed: { zero_optimization: { stage: 3, ...zero } } })).byKind.gather
        ?.seconds ?? 0;
    expect(gather(ON_HOST, { gpu: 'h100-80gb' })).toBeGreaterThan(gather({}, { gpu: 'h100-80gb' }));
    expect(gather(ON_HOST, {})).toBe(gather({}, {}));
  });

  test('is nothing below stage 3', () => {
    expect(states({ stage: 2, ...ON_HOST })).toEqual(states({ stage: 2 }));
  });
});

describe('states of an optimizer', () => {
  const perOwned = (optimizer: object): readonly [string, number] => {
    const found = states({}, {}, { optimizer }).device.find(({ name }) => name.endsWith(' states'));
    return [found?.name ?? 'none', Math.round(((found?.bytes ?? 0) * 4) / parameters.numTrainedParameters)];
  };

  test.each([
    [{ type: 'adam', params: {} }, ['Adam states', 8]],
    [{ type: 'AdamW', params: { torch_adam: true, amsgrad: true } }, ['Adam states', 12]],
    [{ type: 'Lion', params: {} }, ['Lion states', 4]],
    [{ type: 'Adagrad', params: {} }, ['Adagrad states', 4]],
    [{ type: 'SGD', params: { momentum: 0.9 } }, ['momentum states', 4]],
    [{ type: 'SGD', params: {} }, ['none', 0]],
    [{ type: 'RMSprop', params: { momentum: 0.9, centered: true } }, ['RMSprop states', 12]],
  ])('%j', (optimizer, expected) => {
    expect(perOwned(optimizer)).toEqual(expected);
  });
});
