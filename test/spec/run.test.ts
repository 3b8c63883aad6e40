import { describe, expect, test } from 'vitest';
import { parseSpecs } from '../../src/catalog/index.js';
import { withChunks } from '../../src/spec/sizes.js';
import { errorOf, specs } from './inputs.js';

test('defaults are filled in', () => {
  expect(specs().run).toEqual({
    kind: 'run',
    seqLen: 1024,
    paddedSeqLen: 1024,
    rowTile: 1,
    sequenceParallelSize: 4,
    dataParallelSize: 1,
    policy: 'auto',
    prefetchDepth: 2,
    hbmReserve: 0,
    dtype: 'float32',
    zeroStage: 0,
    gradientAccumulationSteps: 1,
    lossScale: 1,
    numSteps: 1,
    seed: 0,
  });
});

test('sequences that do not divide are padded', () => {
  expect(specs({ run: { seqLen: 1001, numChunks: 3 } }).run.paddedSeqLen).toBe(1008);
  const { run } = specs({ run: { seqLen: 1001 } });
  expect(run.paddedSeqLen).toBe(1004);
  expect(withChunks(run, 16).paddedSeqLen).toBe(1024);
});

describe('on a GPU', () => {
  const cluster = { gpu: 'h100-80gb', gpus: 4 };

  test('a rank has whole tiles of 128 rows of every chunk', () => {
    expect(specs({ cluster, run: { seqLen: 1001, numChunks: 3 } }).run).toMatchObject({ seqLen: 1001, paddedSeqLen: 1536 });
    const { run } = specs({ cluster, run: { seqLen: '1M' } });
    expect([run.paddedSeqLen, withChunks(run, 48).paddedSeqLen]).toEqual([2 ** 20, 43 * 48 * 4 * 128]);
  });

  test('a table of positions is not looked at past its end', () => {
    const dropout = { resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 };
    const gpt2 = { model_type: 'gpt2', n_embd: 64, n_head: 8, n_layer: 2, n_positions: 1024, vocab_size: 100, ...dropout };
    const { run } = parseSpecs({ model: gpt2, cluster, run: { seqLen: 1024, numChunks: 8 } });
    expect(run).toMatchObject({ paddedSeqLen: 1024, rowTile: 1 });
  });
});

describe('ranks and heads', () => {
  test('as many sequence parallel ranks as both head counts allow', () => {
    expect(specs({ cluster: { gpus: 8 } }).run).toMatchObject({ sequenceParallelSize: 4, dataParallelSize: 2 });
    expect(specs({ cluster: { gpus: 6 } }).run).toMatchObject({ sequenceParallelSize: 2, dataParallelSize: 3 });
    expect(specs({ run: { dataParallelSize: 2 } }).run).toMatchObject({ sequenceParallelSize: 2, dataParallelSize: 2 });
  });

  test('asked for, any size up to the query heads is legal, also by way of the replicas', () => {
    expect(specs({ cluster: { gpus: 8 }, run: { sequenceParallelSize: 8 } }).run).toMatchObject({
      sequenceParallelSize: 8,
      dataParallelSize: 1,
    });
    expect(specs({ cluster: { gpus: 3 }, run: { sequenceParallelSize: 3 } }).run).toMatchObject({
      sequenceParallelSize: 3,
      dataParallelSize: 1,
    });
    expect(specs({ cluster: { gpus: 12 }, run: { dataParallelSize: 2 } }).run).toMatchObject({
      sequenceParallelSize: 6,
      dataParallelSize: 2,
    });
  });

  test('more ranks than heads: the hint is the largest that works, and where copies begin', () => {
    const error = errorOf(() => specs({ cluster: { gpus: 16 }, run: { sequenceParallelSize: 16 } }));
    expect(error).toMatchObject({ code: 'too-many-ranks-for-heads' });
    expect(error.hint).toBe(
      'the largest that works here is sequenceParallelSize=8 with dataParallelSize=2; key/value heads are copied above sequenceParallelSize=4',
    );
    expect(errorOf(() => specs({ cluster: { gpus: 18 }, run: { dataParallelSize: 2 } })).hint).toContain('sequenceParallelSize=6 with');
  });

  test.each([
    [4, { sequenceParallelSize: 2, dataParallelSize: 3 }, '2 * 3 != 4', 'sequenceParallelSize=2 with dataParallelSize=2'],
    [3, { sequenceParallelSize: 2 }, '2 * ? != 3', 'sequenceParallelSize=1 with dataParallelSize=3'],
    [4, { dataParallelSize: 3 }, '? * 3 != 4', 'sequenceParallelSize=1 with dataParallelSize=4'],
    [4, { dataParallelSize: 8 }, '? * 8 != 4', 'sequenceParallelSize=1 with dataParallelSize=4'],
    [4, { sequenceParallelSize: 8 }, '8 * ? != 4', 'sequenceParallelSize=4 with dataParallelSize=1'],
  ])('%i ranks are not %j', (gpus, run, product, hint) => {
    const error = errorOf(() => specs({ cluster: { gpus }, run }));
    expect(error.code).toBe('bad-parallelism');
    expect(error.message).toContain(product);
    expect(error.hint).toContain(hint);
  });
});

test.each([
  [{ seq_len: 1 }, 'unknown-key', 'seqLen'],
  [{ polizy: 'fpdt' }, 'unknown-key', 'policy'],
  [{ seqLen: 'long' }, 'invalid-value', '128K'],
  [{ seqLen: undefined }, 'missing-key', ''],
  [{ numChunks: 0 }, 'invalid-value', ''],
  [{ numChunks: 257 }, 'too-many-chunks', '256'],
  [{ policy: 'fast' }, 'invalid-value', ''],
  [{ dtype: 'float64' }, 'invalid-value', ''],
  [{ segmentLayers: 5 }, 'bad-segment', 'segmentLayers=4'],
  [{ attention: '' }, 'invalid-value', ''],
  [{ headGroups: 0 }, 'invalid-value', ''],
  [{ headGroups: 2 }, 'bad-head-groups', 'headGroups can be 1'],
  [{ sequenceParallelSize: 1, headGroups: 3 }, 'bad-head-groups', 'headGroups can be 1, 2, 4'],
  [
    { sequenceParallelSize: 1, headGroups: 2, strategy: { layers: [{ layers: [0, 4], backwardOrder: 'keyValueOuterAscending' }] } },
    'bad-order',
    'queryOuterDescending',
  ],
  [{ headGroups: 2, strategy: { headGroups: 4 } }, 'conflict', ''],
  [{ lossScale: 0 }, 'invalid-value', ''],
])('run %j is refused', (run, code, hint) => {
  const error = errorOf(() => specs({ run }));
  expect(error.code).toBe(code);
  expect(error.hint ?? '').toContain(hint);
});

test('segments need not divide the layers', () => {
  expect(specs({ run: { segmentLayers: 3 } }).run.segmentLayers).toBe(3);
});

test('a static loss scale is a choice of the run', () => {
  expect(specs({ run: { lossScale: 65536 } }).run.lossScale).toBe(65536);
});
