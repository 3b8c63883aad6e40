/** The load instant by hand, on a model whose embedding is larger than a layer; measured runs are held against it in python/tests/test_load.py. */
import { describe, expect, test } from 'vitest';
import { parameterTable, parseModel } from '../../src/catalog/index.js';
import { numWeightElements } from '../../src/catalog/parameters.js';
import { sumBytes } from '../../src/memory/items.js';
import { type LoadInput, loadItems } from '../../src/memory/load.js';

const model = parseModel({
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 4096,
  tie_word_embeddings: false,
});
const parameters = parameterTable(model);
/** Of the whole model, of the embedding and as many of lm_head, of a layer, of its largest weight, and of the final norm. */
const ALL = parameters.numModelParameters;
const ENDS = 4096 * 64;
const LAYER = numWeightElements(parameters.layers[0]?.weights ?? []);
const MLP = 160 * 64;
const NORM = 64;

type Dtype = LoadInput['run']['dtype'];
const ROOMY = 1e12;

function load(zero: object, dtype: Dtype, more: Partial<LoadInput> = {}, config: object = {}) {
  const items = loadItems({
    parameters,
    classOf: [0, 0, 0, 0],
    tieWordEmbeddings: false,
    run: { dtype, gradientAccumulationSteps: 1 },
    numRanks: 2,
    extraLayers: 0,
    device: 'cpu',
    deviceBytes: ROOMY,
    deepspeed: { zero_optimization: { reduce_bucket_size: 1000, ...zero }, ...config },
    ...more,
  });
  const bytes = (pool: 'device' | 'pinned'): number => sumBytes([...items[pool].kept, ...items[pool].passing]);
  return { ...items, deviceBytes: bytes('device'), pinnedBytes: bytes('pinned') };
}

const TORCH_ADAM = { optimizer: { type: 'AdamW', params: { torch_adam: true } } };
const OFFLOAD = { offload_optimizer: { device: 'cpu', pin_memory: false } };
const cuda = { device: 'cuda' } as const;

describe('on a CPU, 2 ranks', () => {
  test.each<[string, object, Dtype, number]>([
    ['0', { stage: 0 }, 'float32', 4 * ALL],
    ['1', { stage: 1 }, 'float32', 8 * ALL],
    ['1', { stage: 1 }, 'bfloat16', 2 * ALL + 8 * (ALL / 2)],
    ['2', { stage: 2 }, 'bfloat16', 2 * ALL + 8 * (ALL / 2)],
    ['3', { stage: 3 }, 'float32', 12 * (ALL / 2) + 4 * 1000 + 4 * ENDS],
    ['3', { stage: 3 }, 'bfloat16', 10 * (ALL / 2)],
    ['2, offloaded', { stage: 2, ...OFFLOAD }, 'bfloat16', 2 * ALL + 10 * (ALL / 2) + 2 * 2 * ENDS],
    ['3, offloaded', { stage: 3, ...OFFLOAD }, 'bfloat16', 14 * (ALL / 2)],
  ])('stage %s: %j in %s', (_, zero, dtype, bytes) => {
    const { deviceBytes, pinnedBytes } = load(zero, dtype);
    expect(deviceBytes).toBe(bytes);
    expect(pinnedBytes).toBe(0);
  });

  test('stage 0 in bf16 makes the Adam states at once, with temporaries of the largest weight', () => {
    expect(load({ stage: 0 }, 'bfloat16', {}, TORCH_ADAM).deviceBytes).toBe(20 * ALL + 8 * ENDS);
    expect(load({ stage: 0 }, 'bfloat16').deviceBytes).toBe(18 * ALL);
  });

  test('stage 1 accumulating bf16 gradients in fp32 keeps all of them', () => {
    const bytes = load({ stage: 1 }, 'bfloat16', {}, { data_types: { grad_accum_dtype: 'fp32' } }).deviceBytes;
    expect(bytes).toBe(2 * ALL + 4 * (ALL / 2) + 4 * ALL);
  });

  test('one rank alone holds master weights and zero gradients of everything', () => {
    expect(load({ stage: 1 }, 'float32', { numRanks: 1 }).deviceBytes).toBe(12 * ALL);
  });
});

describe('under ZeRO-3', () => {
  test('many ranks are fullest while lm_head is made: whole in fp32, and just cast', () => {
    const { deviceBytes } = load({ stage: 3 }, 'bfloat16', { numRanks: 64 });
    expect(deviceBytes).toBe(2 * ((ALL - ENDS) / 64) + 6 * ENDS);
  });

  test('in fp32 while the largest weight is gathered for its hook', () => {
    expect(load({ stage: 3 }, 'float32', { numRanks: 64 }).deviceBytes).toBe(12 * (ALL / 64) + 4 * 1000 + 4 * ENDS);
  });

  test('a layer is that unit where it is larger than the ends, and is cast the smallest weight first', () => {
    const small = parameterTable(parseModel({ ...model.hfConfig, vocab_size: 64 }));
    const numRanks = 64;
    const shards = (numel: number): number => numel / numRanks;
    const before = 2 * (shards(64 * 64) + 3 * shards(LAYER));
    const sizes = [NORM, NORM, 2048, 2048, 4096, 4096, MLP, MLP, MLP];
    const moments = sizes.map((_, at) => 4 * sum(sizes.slice(at)) + 2 * sum(sizes.slice(0, at + 1)));
    expect(sum(sizes)).toBe(LAYER);
    const { deviceBytes } = load({ stage: 3, reduce_bucket_size: 1 }, 'bfloat16', { parameters: small, numRanks });
    expect(deviceBytes).toBe(before + Math.max(...moments));
  });

  test('zero gradients are of the largest sub-group, which ends with the weight that fills it', () => {
    // On the host of a GPU, where no weight is gathered: the embedding and both layers, then what is left.
    const even = { ...cuda, classOf: [0, 0] };
    const zero = { stage: 3, ...OFFLOAD, sub_group_size: (2 * LAYER + ENDS) / 2 };
    const owned = (2 * LAYER + 2 * ENDS + NORM) / 2;
    expect(load(zero, 'bfloat16', even).pinnedBytes).toBe(8 * owned + 4 * ((2 * LAYER + ENDS) / 2));
    expect(load({ ...zero, sub_group_size: 1e9 }, 'bfloat16', even).pinnedBytes).toBe(12 * owned);
  });
});

describe('on a GPU', () => {
  test('units are made in host memory, and flat copies of shards pass through it', () => {
    const many = load({ stage: 3 }, 'bfloat16', { ...cuda, numRanks: 64 });
    // lm_head in fp32, and on its way in bf16.
    expect(many.pinnedBytes).toBe(6 * ENDS);
    expect(many.deviceBytes).toBe((2 + 4 + 2) * (ALL / 64) + 2 * 1000 + 2 * ENDS);
    expect(load({ stage: 3 }, 'float32', { ...cuda, numRanks: 64 }).pinnedBytes).toBe(4 * ENDS);
  });

  test('optimizer states that are offloaded are in host memory, twice while they are pinned', () => {
    const aligned = 2 * Math.ceil(ALL / 4);
    const states = (4 + 4 + 2) * aligned + 2 * ENDS;
    expect(load({ stage: 2, ...OFFLOAD }, 'bfloat16', cuda).pinnedBytes).toBe(states);
    // DeepSpeed pins unless it is told not to, and PyTorch rounds what is pinned up to a power of two.
    const pinned = { stage: 2, offload_optimizer: { device: 'cpu' } };
    const up = (bytes: number): number => 2 ** Math.ceil(Math.log2(bytes));
    const rounded = 2 * up(4 * aligned) + up(2 * aligned) + up(2 * ENDS);
    expect(load(pinned, 'bfloat16', cuda).pinnedBytes).toBe(rounded + 6 * aligned);
    expect(load(pinned, 'bfloat16').pinnedBytes).toBe(0);
  });

  test('weights are flattened in host memory where the device has no room for the copy', () => {
    const roomy = load({ stage: 2 }, 'bfloat16', { ...cuda, numRanks: 64 });
    expect([roomy.deviceBytes, roomy.pinnedBytes]).toEqual([4 * ALL, 6 * ENDS]);
    const tight = load({ stage: 2 }, 'bfloat16', { ...cuda, numRanks: 64, deviceBytes: 4 * ALL - 1 });
    expect(tight.deviceBytes).toBe(2 * ALL + 8 * (2 * Math.ceil(ALL / 128)));
    expect(tight.pinnedBytes).toBe(4 * ALL);
  });

  test('torch_adam at stage 0 in bf16 has temporaries of all weights at once', () => {
    expect(load({ stage: 0 }, 'bfloat16', cuda, TORCH_ADAM).deviceBytes).toBe(24 * ALL);
  });
});

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
