import { describe, expect, test } from 'vitest';
import { parallelLayout } from '../../src/spec/parallelLayout.js';
import type { NamedPool } from '../../src/spec/pools.js';
import { type RemarkInput, remarks } from '../../src/spec/remarks.js';
import type { LayerStrategy, Strategy } from '../../src/spec/strategy.js';

const POOLS: readonly NamedPool[] = [
  { name: 'near', kind: 'device' },
  { name: 'far', kind: 'pinned' },
];

const RUN = { seqLen: 64, dtype: 'float32', zeroStage: 0 } as const;

function remarksOn(
  numHeads: number,
  numKvHeads: number,
  ranks: number,
  kvTileChunks = 1,
  keyValues: readonly string[] = ['near'],
  hfConfig: Readonly<Record<string, unknown>> = {},
  more: Partial<Pick<RemarkInput, 'run' | 'deepspeed'>> = {},
  change: Partial<LayerStrategy> = {},
) {
  const layers = keyValues.map(
    (place, i): LayerStrategy => ({
      layers: [i, i + 1],
      keyValues: place,
      keyValueGradients: 'near',
      attentionOutput: 'near',
      checkpoints: 'near',
      backwardOrder: 'queryOuterDescending',
      segments: [1],
      ...change,
    }),
  );
  const strategy: Strategy = {
    kind: 'strategy',
    policy: 'auto',
    numChunks: 4,
    chunkTokens: 16,
    localChunkTokens: 16 / ranks,
    kvTileChunks,
    numLossTiles: 1,
    numTokenTiles: 1,
    prefetchDepth: 2,
    hiddenGradients: 'near',
    layers,
  };
  const layout = parallelLayout({ numHeads, numKvHeads }, { sequenceParallelSize: ranks, dataParallelSize: 1 }, 8);
  return remarks({ layout, strategy, pools: POOLS, model: { hfConfig }, run: RUN, deepspeed: {}, ...more });
}

test('nothing is said of what costs nothing', () => {
  expect(remarksOn(8, 4, 4)).toEqual([]);
});

test('copies and padded heads are named', () => {
  expect(remarksOn(8, 2, 4)).toEqual(['4 sequence parallel ranks hold up to 2 copies of a key/value head (1 on each rank)']);
  expect(remarksOn(6, 6, 4)).toEqual(['2 of 8 places for query heads are padding: that share of the attention work is wasted']);
});

test('tiles of keys and values that are never fetched', () => {
  expect(remarksOn(8, 4, 4, 2, ['near', 'near'])).toEqual([
    'kvTileChunks=2 has no effect: keys and values of every layer stay on the device',
  ]);
  expect(remarksOn(8, 4, 4, 2, ['near', 'far'])).toEqual([]);
});

test('outputs to be kept by a rebuild that never comes', () => {
  const on = (change: Partial<LayerStrategy>) =>
    remarksOn(8, 4, 4, 1, ['near'], {}, {}, { layers: [0, 2], rebuiltOutput: 'far', ...change });
  const recomputed = { attentionOutput: 'recompute', segments: [2] };
  expect([on(recomputed), on({ rebuiltOutput: 'recompute' }), on({ ...recomputed, rebuildsLast: true })]).toEqual([[], [], []]);
  expect(on({ ...recomputed, rebuiltOutput: 'recompute', rebuildsLast: true })).toEqual([
    'rebuildsLast of layers 0-1 has no effect: no outputs are kept once rebuilt (rebuiltOutput)',
  ]);
  expect(on({ segments: [2] })).toEqual([
    'rebuiltOutput=far of layers 0-1 has no effect: their attention output is kept in near from forward on',
  ]);
  expect(on({ ...recomputed, segments: [1, 1] })).toEqual([
    'rebuiltOutput=far of layers 0-1 has no effect: each has a checkpoint of its own, so none is rebuilt',
  ]);
});

test('packed documents, of which the prediction knows nothing', () => {
  expect(remarksOn(8, 4, 4, 1, ['near'], {}, { run: { ...RUN, packing: true } })).toEqual([
    'time and copies are those of one document of 64 tokens in each sequence: packed documents take less',
  ]);
});

test('a sequence longer than what the model was made for', () => {
  const on = (most: unknown) => remarksOn(8, 4, 4, 1, ['near'], { max_position_embeddings: most });
  expect([on(64), on(null), on(undefined)]).toEqual([[], [], []]);
  expect(on(48)).toEqual([
    "the config's max_position_embeddings is 48: of 64 positions the model has learned the first 48, see rope_theta and rope_scaling",
  ]);
});

test('hysteresis that an optimizer without ZeRO does not have', () => {
  const half = { ...RUN, dtype: 'float16' } as const;
  const on = (fp16: object, run: RemarkInput['run'] = half) => remarksOn(8, 4, 4, 1, ['near'], {}, { run, deepspeed: { fp16 } });
  expect(on({ hysteresis: 2 })).toEqual([
    'fp16.hysteresis=2 has no effect: without ZeRO DeepSpeed halves the loss scale at every overflow',
  ]);
  for (const silent of [on({}), on({ hysteresis: 1 }), on({ hysteresis: 2, loss_scale: 8 })]) expect(silent).toEqual([]);
  expect(on({ hysteresis: 2 }, { ...half, zeroStage: 1 })).toEqual([]);
  expect(on({ hysteresis: 2 }, RUN)).toEqual([]);
});

describe('keys of a ds_config', () => {
  const on = (deepspeed: object, run: Partial<RemarkInput['run']> = {}) =>
    remarksOn(8, 4, 4, 1, ['near'], {}, { run: { ...RUN, ...run }, deepspeed: deepspeed as RemarkInput['deepspeed'] });
  const offloaded = { contiguous_gradients: false, offload_optimizer: { device: 'cpu' } };

  test.each([
    [{ zero_optimization: offloaded }, { zeroStage: 2 }, 'contiguous_gradients has no effect'],
    [{ zero_optimization: { allgather_partitions: false } }, {}, 'allgather_partitions has no effect'],
    [{ disable_allgather: true }, {}, 'disable_allgather has no effect'],
    [{ seq_parallel_communication_data_type: 'fp32' }, {}, 'seq_parallel_communication_data_type has no effect'],
    [{ activation_checkpointing: { cpu_checkpointing: true } }, {}, 'activation_checkpointing has no effect'],
    [{ zero_optimization: { leaf_module: { classes: [] } } }, {}, 'leaf_module may have more than a layer gathered'],
    [{ zero_optimization: { stage3_module_granularity_threshold: 1 } }, {}, 'may have more than a layer gathered'],
    [{ wall_clock_breakdown: true }, {}, 'wall_clock_breakdown costs time'],
    [{ flops_profiler: { enabled: true } }, {}, 'flops_profiler.enabled costs time'],
  ] as const)('%j is remarked on', (config, run, text) => {
    expect(on(config, run)).toEqual([expect.stringContaining(text)]);
  });

  test.each([
    [{ zero_optimization: offloaded }, { zeroStage: 3 }],
    [{ zero_optimization: { contiguous_gradients: false } }, { zeroStage: 2 }],
    [{ communication_data_type: 'fp32' }, { dtype: 'bfloat16' }],
    [{ activation_checkpointing: {}, wall_clock_breakdown: false, zero_optimization: { allgather_partitions: true } }, {}],
  ] as const)('%j with %j is not', (config, run) => {
    expect(on(config, run)).toEqual([]);
  });
});
