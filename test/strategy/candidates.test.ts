import { describe, expect, test } from 'vitest';
import type { Strategy } from '../../src/spec/strategy.js';
import { candidates } from '../../src/strategy/candidates.js';
import { type Bend, specs } from '../spec/inputs.js';

function placements(run: object, more: Bend = {}): readonly (readonly Strategy[])[] {
  const { model, run: parsed } = specs({ run: { seqLen: 8192, ...run }, ...more });
  return candidates({ model, run: parsed, pools: { device: 'hbm', pinned: 'host' } });
}

function places(run: object): readonly string[] {
  return placements(run).map((counts) =>
    (counts[0]?.layers ?? [])
      .map(({ keyValues, attentionOutput, checkpoints }) => [keyValues, attentionOutput, checkpoints].join(' '))
      .join(', '),
  );
}

describe('placements of a policy', () => {
  test('auto: what is fastest first, what needs least memory last', () => {
    expect(places({ policy: 'auto' })).toEqual([
      'hbm hbm hbm',
      'hbm hbm host',
      'hbm host host',
      'hbm recompute hbm',
      'hbm recompute host',
      'host host host',
      'host recompute host',
    ]);
  });

  test('chunk counts double; a chunk has 2048 tokens or there are eight', () => {
    const counts = (run: object): readonly number[] => (placements(run)[0] ?? []).map(({ numChunks }) => numChunks);
    expect(counts({ policy: 'auto' })).toEqual([1, 2, 4, 8]);
    expect(counts({ policy: 'auto', seqLen: '256K' })).toEqual([1, 2, 4, 8, 16, 32, 64, 128]);
    expect(counts({ policy: 'auto', seqLen: '16M' }).slice(0, 2)).toEqual([16, 32]);
    expect(counts({ policy: 'auto', seqLen: '16M' }).at(-1)).toBe(512);
    expect(counts({ policy: 'fpdt', seqLen: '256K' })[0]).toBe(4);
    for (const policy of ['ulysses', 'ulysses-offload', 'alst']) expect(counts({ policy, seqLen: '256K' })).toEqual([1]);
    expect(counts({ policy: 'auto', numChunks: 5 })).toEqual([5]);
  });

  test('tokens are padded so that chunks divide, and a rank has its share', () => {
    for (const strategy of placements({ seqLen: 8191, sequenceParallelSize: 4 }).flat()) {
      const { numChunks, chunkTokens, localChunkTokens } = strategy;
      expect(chunkTokens).toBe(4 * localChunkTokens);
      expect(numChunks * chunkTokens).toBeGreaterThanOrEqual(8191);
      expect((numChunks * chunkTokens - 8191) / 4).toBeLessThan(numChunks);
    }
  });

  test('loss tiles hold at most what a policy allows them', () => {
    const tiles = (run: object): number | undefined =>
      placements({ seqLen: '1M', numChunks: 1, sequenceParallelSize: 4, ...run })[0]?.[0]?.numLossTiles;
    // 262144 rows of 128 fp32 logits are 128 MiB.
    expect(tiles({ policy: 'auto' })).toBe(1);
    expect(tiles({ policy: 'auto', seqLen: '2M' })).toBe(2);
    expect(tiles({ policy: 'fpdt' })).toBe(32);
    expect(tiles({ policy: 'fpdt', seqLen: 4096, numLossTiles: 1024 })).toBe(1024);
    expect(tiles({ policy: 'alst', seqLen: '8M' })).toBe(1);
    expect(tiles({ policy: 'alst', seqLen: '9M' })).toBe(2);
  });

  test('alst tiles a layer into as many tokens as the model is wide, of each chunk', () => {
    const tiles = (run: object): number | undefined =>
      placements({ policy: 'alst', sequenceParallelSize: 4, ...run })[0]?.[0]?.numTokenTiles;
    expect(tiles({ seqLen: 256 })).toBe(1);
    expect(tiles({ seqLen: 260 })).toBe(2);
    expect(tiles({ seqLen: 8192 })).toBe(32);
    expect(tiles({ seqLen: 8192, numChunks: 4 })).toBe(8);
    expect(tiles({ seqLen: 8192, numTokenTiles: 3 })).toBe(3);
    expect(tiles({ seqLen: 8192, policy: 'ulysses-offload' })).toBe(1);
  });
});

describe('what the user fixed', () => {
  test('a tile leaves the numbers of chunks that have room for it, and is never made smaller', () => {
    const chosen = (run: object): readonly number[] => (placements(run)[0] ?? []).map(({ numChunks }) => numChunks);
    expect(chosen({ policy: 'auto', kvTileChunks: 3 })).toEqual([4, 8]);
    // Four ranks have 2048 tokens each, in all chunks.
    expect(chosen({ policy: 'auto', numTokenTiles: 1000 })).toEqual([1, 2]);
    expect(chosen({ policy: 'auto', numLossTiles: 2048 })).toEqual([1]);
  });

  test.each([
    [{ kvTileChunks: 9 }, 'kvTileChunks 9 is more than the 8 chunks there can be', 'kvTileChunks can be at most 8'],
    [{ kvTileChunks: 4, numChunks: 2 }, 'kvTileChunks 4 is more than the 2 chunks there can be', 'kvTileChunks can be at most 2'],
    [
      { numLossTiles: 2049 },
      'numLossTiles 2049 is more than the 2048 tokens that a rank has of a chunk',
      'numLossTiles can be at most 2048',
    ],
    [
      { numTokenTiles: 257, numChunks: 8 },
      'numTokenTiles 257 is more than the 256 tokens that a rank has of a chunk',
      'numTokenTiles can be at most 256',
    ],
  ])('%j leaves none', (run, message, hint) => {
    expect(() => placements({ policy: 'auto', ...run })).toThrowError(expect.objectContaining({ code: 'invalid-value', message, hint }));
  });

  test("may differ from range to range; the rest is the policy's", () => {
    const layers = [
      { layers: [0, 1], checkpoints: 'host' },
      { layers: [1, 4], attentionOutput: 'recompute', segments: 2 },
    ];
    expect(places({ policy: 'auto', strategy: { layers } })[0]).toBe('hbm hbm host, hbm recompute hbm');
    expect(placements({ strategy: { layers } })[0]?.[0]?.layers.map(({ segments }) => segments)).toEqual([[1], [2, 1]]);
    expect(places({ policy: 'fpdt', strategy: { layers } })).toEqual(['host recompute host, host recompute host']);
  });

  test('segments of the run hold for every range', () => {
    const layers = [{ layers: [0, 3] }, { layers: [3, 4] }];
    expect(placements({ segmentLayers: 2, strategy: { layers } })[0]?.[0]?.layers.map(({ segments }) => segments)).toEqual([[2, 1], [1]]);
    expect(placements({ segmentLayers: 3 })[0]?.[0]?.layers.map(({ segments }) => segments)).toEqual([[3, 1]]);
  });

  test("counts are the strategy's as they are given", () => {
    const first = (run: object): Strategy | undefined => placements(run)[0]?.[0];
    expect(first({ numChunks: 4, kvTileChunks: 4 })?.kvTileChunks).toBe(4);
    expect(first({ kvTileChunks: 4 })).toMatchObject({ numChunks: 4, kvTileChunks: 4 });
    expect(first({ prefetchDepth: 3, strategy: { hiddenGradients: 'host' } })).toMatchObject({ prefetchDepth: 3, hiddenGradients: 'host' });
    expect(first({})).toMatchObject({ prefetchDepth: 2, hiddenGradients: 'hbm', kvTileChunks: 1, numTokenTiles: 1 });
  });

  test('gradients of k, v that are to leave the device take the order that lets them', () => {
    const order = (range: object): unknown =>
      placements({ policy: 'fpdt', strategy: { layers: [{ layers: [0, 4], ...range }] } })[0]?.[0]?.layers[0];
    expect(order({})).toMatchObject({ keyValueGradients: 'hbm', backwardOrder: 'keyValueOuterAscending' });
    expect(order({ keyValueGradients: 'hbm' })).toMatchObject({ backwardOrder: 'keyValueOuterAscending' });
    expect(order({ keyValueGradients: 'host' })).toMatchObject({ keyValueGradients: 'host', backwardOrder: 'queryOuterDescending' });
  });
});
