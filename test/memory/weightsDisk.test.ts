/** Ledger and time of weights that are on a disk. */
import { describe, expect, test } from 'vitest';
import { parameterTable } from '../../src/catalog/parameters.js';
import { loadItems } from '../../src/memory/load.js';
import type { ModelStatesInput } from '../../src/memory/modelStates.js';
import { gatherSeconds, optimizerSeconds, zeroCosts } from '../../src/predict/zeroCosts.js';
import { FpdtError } from '../../src/spec/errors.js';
import { withChunks } from '../../src/spec/sizes.js';
import { planRun } from '../../src/strategy/planRun.js';
import { LLAMA, specs } from '../spec/inputs.js';
import { bytesOf, inputOf, statesOf } from './states.js';

/** Of four ranks all shares but those of norms, embedding and head are 1 MiB and more. */
const BIG = { hidden_size: 2048, intermediate_size: 8192 };
const { model } = specs({ model: BIG });
const parameters = parameterTable(model);
const OWNED = parameters.numTrainedParameters / 4;
const ALL = { max_in_cpu: 0 };
const BUFFERS = 'buffers of weights';
const BLOCK = 'weights kept in host memory';
const UPDATES = 'updated weights on their way to the disk';

const onDisk = (offload: object): object => ({ offload_param: { device: 'nvme', nvme_path: '/nvme', buffer_size: 8e6, ...offload } });
const states = (offload: object, zero: object = {}, more: Partial<ModelStatesInput> = {}) =>
  statesOf(model, { ...zero, ...onDisk(offload) }, more);

describe('weights on a disk', () => {
  test('are there but for small ones, and have buffers in host memory', () => {
    const found = states(ALL);
    expect(bytesOf(found.file, 'weights') / (2 * OWNED)).toBeCloseTo(1, 1);
    expect(bytesOf(found.pinned, BUFFERS)).toBe(5 * 2 * 8e6);
    expect(bytesOf(states({ ...ALL, buffer_count: 2 }).pinned, BUFFERS)).toBe(2 * 2 * 8e6);
    expect(bytesOf(found.pinned, BLOCK)).toBe(0);
    // Of all ranks.
    expect(bytesOf(found.pinned, UPDATES) / (2 * 4 * OWNED)).toBeCloseTo(1, 1);
    expect(bytesOf(found.device, 'weight shard') + bytesOf(found.pinned, 'weight shard')).toBe(0);
  });

  test('come back to host memory where max_in_cpu has room for whole sub-groups', () => {
    const all = states({});
    expect(bytesOf(all.pinned, BLOCK)).toBeGreaterThanOrEqual(2 * OWNED);
    expect(bytesOf(all.pinned, UPDATES)).toBe(0);
    // The files stay.
    expect(bytesOf(all.file, 'weights')).toBe(bytesOf(states(ALL).file, 'weights'));
    const cut = bytesOf(states({ max_in_cpu: Math.ceil(OWNED / 2) }, { sub_group_size: Math.ceil(OWNED / 8) }).pinned, UPDATES);
    expect(cut).toBeGreaterThan(0);
    expect(cut).toBeLessThan(4 * OWNED);
  });

  test('leave their buffers for the device, which has a share of all that is gathered', () => {
    const name = 'shares from the disk';
    const forward = states(ALL).instants.layerForward;
    expect(bytesOf(forward, name)).toBe(Math.ceil(bytesOf(forward, 'gathered weights') / 4));
    expect(bytesOf(states({}).instants.layerForward, name)).toBe(0);
    expect(bytesOf(states(ALL, {}, { device: 'cpu' }).instants.layerForward, name)).toBeGreaterThan(0);
  });

  test('are written while the model is built: start-up has buffers in their place', () => {
    const load = (offload: object): number => {
      const zero = { offload_optimizer: { device: 'cpu' }, sub_group_size: 1e6, ...onDisk(offload) };
      const { pinned } = loadItems({ ...inputOf(model, zero), deviceBytes: 1e12 });
      return [...pinned.kept, ...pinned.passing].reduce((sum, { bytes }) => sum + bytes, 0);
    };
    expect(load(ALL)).toBeLessThan(load({ device: 'cpu' }));
    expect(load({ ...ALL, buffer_count: 50 })).toBeGreaterThan(load({ device: 'cpu' }));
  });

  test('that are too small for it stay in host memory', () => {
    const { model: small } = specs({ model: { hidden_size: 64, intermediate_size: 64 } });
    expect(statesOf(small, onDisk(ALL)).file).toEqual([]);
  });

  test('are read for every gather, which is not ahead, and written after every update', () => {
    const timed = (offload: object) => {
      const deepspeed = { zero_optimization: { stage: 3, ...onDisk(offload) }, bf16: { enabled: true } };
      const found = specs({ model: BIG, cluster: { gpus: 4, gpu: 'h100-80gb' }, deepspeed });
      return { ...found, run: withChunks(found.run, 2), parameters, deepspeed: found.deepspeed.config };
    };
    const [there, back, here] = [timed(ALL), timed({}), timed({ device: 'cpu' })];
    const { diskReadBytes, diskWriteBytes } = there.cluster.rates;
    const read = gatherSeconds(1e9, there, false) - gatherSeconds(1e9, here, false);
    expect((read * diskReadBytes) / (2 * 2.5e8)).toBeCloseTo(1, 1);
    const written = optimizerSeconds(there) - optimizerSeconds(here);
    expect((written * diskWriteBytes) / (2 * OWNED)).toBeCloseTo(1, 1);
    expect([there, back, here].map((one) => zeroCosts(one).overlaps('gather'))).toEqual([false, true, true]);
    expect(gatherSeconds(1e9, back, false)).toBe(gatherSeconds(1e9, here, false));
  });
});

test.each([
  ['offload_param.buffer_size', onDisk({ buffer_size: 1e6 }), 'buffer_size=65667072 works'],
  [
    'stage3_param_persistence_threshold',
    { ...onDisk({ buffer_size: 1e8 }), stage3_param_persistence_threshold: 2 ** 23 },
    'stage3_param_persistence_threshold=8388607 works',
  ],
])('%s that DeepSpeed would fail on is refused, with one that works', async (key, zero, hint) => {
  const request = {
    model: { ...LLAMA, vocab_size: 128_256, hidden_size: 4096 },
    cluster: { gpus: 8, gpu: 'h100-80gb' },
    run: { seqLen: '64K' },
    deepspeed: { zero_optimization: { stage: 3, ...zero }, bf16: { enabled: true } },
  };
  const error: unknown = await planRun(request).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(FpdtError);
  const message = expect.stringContaining(`deepspeed.zero_optimization.${key}: `) as string;
  expect(error).toMatchObject({ code: 'invalid-value', message, hint });
});
