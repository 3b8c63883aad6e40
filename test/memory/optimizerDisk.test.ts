/** Ledger and time of an optimizer whose states are on a disk. */
import { describe, expect, test } from 'vitest';
import { parameterTable } from '../../src/catalog/parameters.js';
import type { ModelStatesInput } from '../../src/memory/modelStates.js';
import { refuseTooFewBuffers } from '../../src/memory/optimizerDisk.js';
import type { WeightFacts } from '../../src/memory/weightsDisk.js';
import { zeroSettings } from '../../src/memory/zeroSettings.js';
import { optimizerSeconds } from '../../src/predict/zeroCosts.js';
import type { DeepSpeedConfig } from '../../src/spec/types.js';
import { smallPlan } from '../predict/smallPlan.js';
import { specs } from '../spec/inputs.js';
import { bytesOf, statesOf } from './states.js';

const { model } = specs({ model: { hidden_size: 1024, intermediate_size: 4096 } });
const parameters = parameterTable(model);
const OWNED = parameters.numTrainedParameters / 4;
const zeroOf = (offload: object, zero: object = {}): DeepSpeedConfig => ({
  zero_optimization: { stage: 3, stage3_param_persistence_threshold: 0, ...zero, offload_optimizer: { nvme_path: '/nvme', ...offload } },
});

const states = (offload: object, zero: object = {}, more: Partial<ModelStatesInput> = {}) =>
  statesOf(model, { ...zero, offload_optimizer: { nvme_path: '/nvme', ...offload } }, more);

const DISK = 'master weights, Adam states, gradients';
const BUFFERS = 'buffers of the disk';

describe('an optimizer on a disk', () => {
  test('has 16 B a parameter there, and a buffer of the largest sub-group for each tensor in host memory', () => {
    const found = states({ device: 'nvme' });
    expect(bytesOf(found.file, DISK)).toBeCloseTo(16 * OWNED, -2);
    expect(bytesOf(found.pinned, BUFFERS) / (4 * 4 * OWNED)).toBeCloseTo(1, 3);
    expect(bytesOf(found.pinned, 'master weights') + bytesOf(found.pinned, 'Adam states')).toBe(0);
    expect(bytesOf(states({ device: 'nvme', buffer_count: 6 }).pinned, BUFFERS)).toBe(1.5 * bytesOf(found.pinned, BUFFERS));
  });

  test('needs less of the host with smaller sub-groups, down to what DeepSpeed writes', () => {
    const [whole, cut] = [states({ device: 'nvme' }), states({ device: 'nvme' }, { sub_group_size: OWNED / 8 })];
    expect(bytesOf(cut.pinned, BUFFERS)).toBeLessThan(bytesOf(whole.pinned, BUFFERS) / 2);
    // Below 1 MiB everything stays.
    const small = { sub_group_size: 1000, device: 'nvme' };
    const tiny = parameterTable(specs({ model: { hidden_size: 64, intermediate_size: 64 } }).model);
    expect(states(small, { sub_group_size: 1 }, { parameters: tiny }).file).toEqual([]);
  });

  test('keeps fp32 gradients on the device that are not written whole; in fp32 they are views', () => {
    const name = 'fp32 gradients off the disk';
    expect(bytesOf(states({ device: 'nvme' }).device, name)).toBeGreaterThan(0);
    const run = { dtype: 'float32', gradientAccumulationSteps: 1 } as const;
    expect(bytesOf(states({ device: 'nvme' }, {}, { run }).device, name)).toBe(0);
  });

  test('reaches checkpoints through one block, which the host of a GPU has in any case', () => {
    const staging = (device: 'cpu' | 'cuda'): number => bytesOf(states({ device: 'nvme' }, {}, { device }).pinned, 'checkpoint staging');
    expect([staging('cpu'), staging('cuda')]).toEqual([16 * 1024 ** 2, 0]);
  });

  test.each([
    [{}, 4],
    [{ pipeline_read: true }, 8],
    [{ pipeline_write: true }, 8],
    [{ pipeline_read: true, pipeline_write: true }, 12],
  ])('with %j has buffers of all sub-groups that are in memory together', (pipeline, needed) => {
    const facts = (buffers: number, subGroupSize: number): WeightFacts => ({
      parameters,
      classOf: model.code.classOf,
      numRanks: 4,
      w: 2,
      zero: zeroSettings(zeroOf({ device: 'nvme', buffer_count: buffers, ...pipeline }, { sub_group_size: subGroupSize })),
    });
    const cut = Math.floor(OWNED / 8);
    expect(() => refuseTooFewBuffers(facts(needed, cut))).not.toThrow();
    // One sub-group is alone.
    expect(() => refuseTooFewBuffers(facts(4, 1e9))).not.toThrow();
    const refused = expect.objectContaining({ hint: `buffer_count=${needed} works` });
    expect(() => refuseTooFewBuffers(facts(needed - 1, cut))).toThrow(refused);
  });

  test('below stage 3 is one on the host', () => {
    expect(states({ device: 'nvme' }, { stage: 2 })).toEqual(states({ device: 'cpu' }, { stage: 2 }));
  });

  test('is read and written at every update', () => {
    const seconds = (device: string): number => {
      const { cluster, run, parameters: table, model: of } = smallPlan();
      const deepspeed = zeroOf({ device });
      return optimizerSeconds({ cluster, run, parameters: table, model: of, deepspeed });
    };
    const { cluster, parameters: table } = smallPlan();
    const { diskReadBytes, diskWriteBytes } = cluster.rates;
    const owned = table.numTrainedParameters / cluster.numRanks;
    expect(seconds('nvme') - seconds('cpu')).toBeCloseTo(owned * (16 / diskReadBytes + 12 / diskWriteBytes), 9);
  });
});
