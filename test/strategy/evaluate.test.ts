import { describe, expect, test } from 'vitest';
import { mulberry32 } from '../../src/address/layout.js';
import { placesOf } from '../../src/spec/strategyPlaces.js';
import { candidates } from '../../src/strategy/candidates.js';
import { estimateMemory } from '../../src/strategy/estimateMemory.js';
import { buildStrategy } from '../../src/strategy/evaluate.js';
import { type Setting, settingOf } from '../../src/strategy/setting.js';
import type { Strategy } from '../../src/spec/strategy.js';
import { type Bend, specs, WITHOUT_ZERO } from '../spec/inputs.js';
import { drawStrategy } from './drawStrategy.js';

/** Two of them on each of four ranks. */
const TWO_KEYS = { num_attention_heads: 16, num_key_value_heads: 8 };

const CHUNK_COUNTS = [1, 6, 9, 13, 24];

/** Every placement of a run with this many chunks of 512 tokens. */
function strategies(
  run: object,
  numChunks: number,
  { cluster, ...more }: Bend = {},
): { readonly setting: Setting; readonly all: readonly Strategy[] } {
  const given = { seqLen: 512 * numChunks, numChunks, ...run };
  const { deepspeed, ...rest } = specs({ cluster: cluster ?? { gpu: 'a100-80gb', diskBytes: 2 ** 40 }, run: given, ...more });
  const setting = settingOf({ ...rest, deepspeed: deepspeed.config });
  return { setting, all: candidates({ model: setting.model, run: setting.run, pools: { device: 'hbm', pinned: 'host' } }).flat() };
}

function expectEqual(run: object, more: Bend = {}, counts: readonly number[] = CHUNK_COUNTS): void {
  for (const numChunks of counts) {
    const { setting, all } = strategies(run, numChunks, more);
    for (const strategy of all) {
      const { numChunks: u, prefetchDepth, kvTileChunks, layers } = strategy;
      const text = JSON.stringify({ u, prefetchDepth, kvTileChunks, layers });
      expect(estimateMemory(setting, strategy), text).toEqual(buildStrategy(setting, strategy).memory);
    }
  }
}

// With 4 ranks, 3 slots of all tokens have as many rows as 12 slots of a rank's own: a ring must not be taken for a whole sequence.
describe('estimateMemory equals the memory of the full schedule', () => {
  test.each([1, 2, 3, 4].flatMap((depth) => [1, 2, 3].map((segment) => [depth, segment] as const)))(
    'prefetch depth %i, segments of %i',
    (prefetchDepth, segmentLayers) => {
      const counts = segmentLayers === 1 ? CHUNK_COUNTS : [1, 9, 13];
      for (const policy of ['fpdt', 'auto']) expectEqual({ policy, prefetchDepth, segmentLayers }, {}, counts);
    },
  );

  test.each([1, 2, 4].flatMap((depth) => [2, 3].map((tile) => [depth, tile] as const)))(
    'prefetch depth %i, k and v in tiles of %i',
    (prefetchDepth, kvTileChunks) => {
      const counts = [6, 13, 25];
      const given = { prefetchDepth, kvTileChunks };
      expectEqual({ ...given, policy: 'fpdt' }, {}, counts);
      const away = { layers: [0, 4], keyValueGradients: 'host', attentionOutput: 'recompute', checkpoints: 'host' };
      for (const keyValues of ['hbm', 'host']) expectEqual({ ...given, strategy: { layers: [{ ...away, keyValues }] } }, {}, counts);
    },
  );

  test.each([1, 2, 3])('prefetch depth %i, outputs kept once rebuilt', (prefetchDepth) => {
    for (const rebuiltOutput of ['hbm', 'host', 'disk']) {
      const given = { attentionOutput: 'recompute', rebuiltOutput, rebuildsLast: prefetchDepth > 1, checkpoints: 'host' };
      const layers = [
        { ...given, layers: [0, 3], segments: 3 },
        { ...given, layers: [3, 4], checkpoints: 'hbm' },
      ];
      for (const policy of ['fpdt', 'auto']) expectEqual({ policy, prefetchDepth, strategy: { layers } }, {}, [1, 9, 13]);
    }
  });

  test.each([1, 2])('prefetch depth %i, heads in groups', (prefetchDepth) => {
    const model = { num_attention_heads: 16, num_key_value_heads: 16 };
    const placed = { layers: [0, 3], segments: 2, checkpoints: 'host' };
    const headGroups = 2 * prefetchDepth;
    for (const keyValues of ['hbm', 'host']) {
      for (const attentionOutput of ['recompute', 'disk']) {
        const layers = [{ ...placed, keyValues, attentionOutput }, { layers: [3, 4] }];
        expectEqual({ prefetchDepth, headGroups, numTokenTiles: headGroups, strategy: { layers } }, { model }, [1, 13]);
      }
    }
  });

  test.each([1, 2, 3])('prefetch depth %i, products kept', (prefetchDepth) => {
    for (const internals of ['hbm', 'host', 'disk']) {
      const layers = [
        { layers: [0, 1], internals, checkpoints: 'host' },
        { layers: [1, 4], internals, attentionOutput: 'recompute', rebuiltOutput: 'host', segments: 3 },
      ];
      for (const policy of ['fpdt', 'auto']) expectEqual({ policy, prefetchDepth, strategy: { layers } }, {}, [1, 9, 13]);
    }
  });

  test.each([
    { model_type: 'llama', ...TWO_KEYS },
    { model_type: 'mistral', sliding_window: 700, ...TWO_KEYS },
  ])('many strategies of one setting, %o', (model) => {
    const random = mulberry32(model.model_type.length);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
    const { setting } = strategies({ seqLen: 65536 }, 16, { model });
    for (let n = 0; n < 150; n++) {
      const one = drawStrategy(setting, random);
      const layers = one.layers.map((range) => ({
        ...range,
        ...(model.model_type === 'mistral' ? { backwardOrder: 'queryOuterDescending' as const } : {}),
        rebuiltOutput: pick(placesOf('rebuiltOutput', setting.pools)),
        rebuildsLast: pick([false, true]),
      }));
      const tiles = { numLossTiles: pick([1, 2, 64]), numTokenTiles: pick([1, 1, 3]) };
      const strategy = { ...one, ...tiles, prefetchDepth: pick([1, 2, 3]), layers };
      expect(estimateMemory(setting, strategy), JSON.stringify(strategy)).toEqual(buildStrategy(setting, strategy).memory);
    }
  });

  test('one model on other machines, with other ranks, lengths and stages of ZeRO', () => {
    const { model } = strategies({}, 1, { model: TWO_KEYS }).setting;
    const away = { layers: [{ layers: [0, 4], keyValues: 'host', checkpoints: 'host' }] };
    for (const [n, run] of [{}, { sequenceParallelSize: 2 }, { packing: true }, { strategy: away }].entries()) {
      for (const cluster of [{ gpu: 'a100-80gb' }, { gpu: 'h100-80gb', gpus: 2, hostBytes: '64G', diskBytes: 2 ** 40 }]) {
        const deepspeed = { ...WITHOUT_ZERO, zero_optimization: { stage: (n % 2) + 2 } };
        const { setting, all } = strategies({ ...run, seqLen: 9216 * (n + 1) }, 9, { cluster, deepspeed, model: TWO_KEYS });
        const ofModel = settingOf({ ...setting, model });
        for (const strategy of all.filter((_, i) => i % 3 === 0)) {
          const { memory } = buildStrategy(setting, strategy);
          expect(estimateMemory(ofModel, strategy), JSON.stringify({ run, cluster, strategy })).toEqual(memory);
        }
      }
    }
  });

  test.each([1, 2, 3])('prefetch depth %i, ranges on disk, dx on the host', (prefetchDepth) => {
    const saved = { checkpoints: 'disk', attentionOutput: 'disk', keyValues: 'hbm' };
    const layers = [
      { ...saved, layers: [0, 1] },
      { ...saved, layers: [1, 3], attentionOutput: 'recompute', keyValues: 'host', segments: 2 },
      { ...saved, layers: [3, 4], checkpoints: 'host', backwardOrder: 'keyValueOuterAscending', keyValueGradients: 'hbm' },
    ];
    expectEqual({ prefetchDepth, strategy: { hiddenGradients: 'host', layers } });
    expectEqual({ prefetchDepth, strategy: { layers: layers.map((one) => ({ ...one, checkpoints: 'disk' })) } });
  });

  test.each([1, 65, 700, 5000])('a sliding window of %i tokens, which the few chunks of the estimate must reach', (window) => {
    const model = { model_type: 'mistral', sliding_window: window };
    const away = { layers: [0, 4], keyValues: 'host', keyValueGradients: 'host', attentionOutput: 'host', checkpoints: 'host' };
    for (const chunk of [64, 512]) {
      for (const strategy of [undefined, { layers: [away] }]) {
        const given = (numChunks: number): object => ({ seqLen: chunk * numChunks, kvTileChunks: 2, ...(strategy && { strategy }) });
        for (const numChunks of [9, 31]) expectEqual(given(numChunks), { model }, [numChunks]);
      }
    }
  });

  const inRanges = (chunk: number): void => {
    const counts = [7, 10, 19, 26];
    const forced = (range: object): object => ({ strategy: { layers: [{ layers: [0, 4], checkpoints: 'host', ...range }] } });
    for (const numChunks of counts) {
      const given = { seqLen: chunk * numChunks };
      for (const policy of ['auto', 'fpdt']) expectEqual({ ...given, policy }, {}, [numChunks]);
      for (const kvTileChunks of [3, 6]) {
        for (const keyValues of ['hbm', 'host']) {
          expectEqual({ ...given, kvTileChunks, ...forced({ keyValues, keyValueGradients: 'host' }) }, {}, [numChunks]);
          expectEqual({ ...given, kvTileChunks, ...forced({ keyValues, backwardOrder: 'keyValueOuterAscending' }) }, {}, [numChunks]);
        }
      }
    }
  };
  test.each([65_536, 200_000])('keys in ranges of 512K tokens at most: chunks of %i', inRanges);
  test.each([131_072, 262_144, 600_000])('keys in ranges of 512K tokens at most: chunks of %i', { tags: ['full'] }, inRanges);

  test('ranges that are longer because there would be too many', { tags: ['full'] }, () => {
    expectEqual({ seqLen: 262_144 * 300 }, {}, [300]);
  });

  test('ranges beside a window, on a kernel without rectangles, and of what a kernel writes out', () => {
    const given = (numChunks: number, more: object = {}): object => ({ seqLen: 131_072 * numChunks, ...more });
    const model = {
      model_type: 'gemma2',
      sliding_window: 200_000,
      attn_logit_softcapping: null,
      final_logit_softcapping: null,
      query_pre_attn_scalar: 8,
    };
    for (const numChunks of [5, 11, 21]) {
      expectEqual(given(numChunks), { model }, [numChunks]);
      expectEqual(given(numChunks), { cluster: { gpu: 'cpu' } }, [numChunks]);
      expectEqual(given(numChunks, { attention: 'reference' }), {}, [numChunks]);
    }
  });

  test('everything on the device in the outer order; tiles of tokens and of the loss; a tied model; the reference kernel; the CPU', () => {
    const outer = { layers: [0, 4], keyValues: 'hbm', keyValueGradients: 'hbm', backwardOrder: 'keyValueOuterAscending' };
    expectEqual({ strategy: { layers: [outer] } });
    expectEqual({ numTokenTiles: 3, numLossTiles: 5 }, {}, [1, 13]);
    expectEqual({}, { model: { tie_word_embeddings: true } }, [1, 13]);
    expectEqual({ attention: 'reference' }, {}, [6, 13]);
    expectEqual({ policy: 'fpdt', attention: 'reference', kvTileChunks: 2 }, {}, [6, 13]);
    for (const policy of ['auto', 'fpdt']) expectEqual({ policy }, { cluster: { gpu: 'cpu' } }, [1, 6, 13]);
  });
});
