import { describe, expect, test } from 'vitest';
import { type Evaluate, type Evaluation, solveStrategy } from '../../src/chunk/solve.js';
import type { Strategy } from '../../src/chunk/strategy.js';
import { type Bend, errorOf, specs } from '../spec/inputs.js';

/** A toy cost: what is resident costs tokens, what streams costs chunks. HBM is 1000 unless a test says otherwise. */
const toy: Evaluate = (strategy, { run, cluster }) => {
  const tokens = strategy.numChunks * strategy.localChunkTokens;
  const hbm = (where: string): number => (where === 'hbm' ? tokens : 0);
  const host = (where: string): number => (where === 'host' ? tokens : 0);
  const hbmBytes =
    4 * strategy.localChunkTokens + hbm(strategy.keyValues) + 2 * hbm(strategy.attentionOutput) + 2 * hbm(strategy.checkpoints);
  const hostBytes = host(strategy.keyValues) + 2 * host(strategy.attentionOutput) + 2 * host(strategy.checkpoints);
  expect(strategy.numChunks * strategy.chunkTokens).toBeGreaterThanOrEqual(run.seqLen);
  return { hbmBytes, hostBytes, fits: hbmBytes <= cluster.hbmBytes && hostBytes <= cluster.hostBytes };
};

function solve(run: object, hbmBytes: number, hostBytes: number, evaluate: Evaluate = toy, bend: Bend = {}): Strategy {
  const input = specs({ run, cluster: { gpus: 4, hbmBytes, hostBytes }, ...bend });
  return solveStrategy(input, evaluate);
}

describe('auto', () => {
  test('keeps everything in HBM in one chunk where that fits', () => {
    expect(solve({ seqLen: 4000 }, 9000, 1)).toMatchObject({ numChunks: 1, keyValues: 'hbm', attentionOutput: 'hbm', checkpoints: 'hbm' });
  });

  test('takes the fewest chunks that fit, then moves what costs least to the host', () => {
    expect(solve({ seqLen: 4000 }, 7000, 1)).toMatchObject({ numChunks: 2, checkpoints: 'hbm' });
    expect(solve({ seqLen: 4000 }, 4000, 2000)).toMatchObject({ checkpoints: 'host', attentionOutput: 'hbm', keyValues: 'hbm' });
    expect(solve({ seqLen: 4000 }, 2500, 4000)).toMatchObject({ checkpoints: 'host', attentionOutput: 'host', keyValues: 'hbm' });
    expect(solve({ seqLen: 4000 }, 2500, 2000)).toMatchObject({ checkpoints: 'host', attentionOutput: 'recompute', keyValues: 'hbm' });
    expect(solve({ seqLen: 4000 }, 600, 5000)).toMatchObject({ checkpoints: 'host', attentionOutput: 'host', keyValues: 'host' });
  });

  test('takes the fastest placement that fits where times are known', () => {
    const timed: Evaluate = (strategy, input): Evaluation => ({
      ...toy(strategy, input),
      stepSeconds: strategy.checkpoints === 'host' ? 1 : 2,
    });
    expect(solve({ seqLen: 4000 }, 9000, 9000, timed).checkpoints).toBe('host');
  });

  test('is deterministic', () => {
    expect(solve({ seqLen: 4000 }, 2500, 4000)).toEqual(solve({ seqLen: 4000 }, 2500, 4000));
  });
});

describe('what policies fix', () => {
  test('ulysses: one chunk, all in HBM, attention recomputed', () => {
    expect(solve({ seqLen: 4000, policy: 'ulysses' }, 9e9, 1)).toMatchObject({
      numChunks: 1,
      numLossTiles: 1,
      keyValues: 'hbm',
      attentionOutput: 'recompute',
      checkpoints: 'hbm',
      backwardOrder: 'queryOuterDescending',
    });
  });

  test('fpdt: chunks of 65536 tokens, halved until they fit', () => {
    expect(solve({ seqLen: '512K', policy: 'fpdt' }, 9e9, 9e9)).toMatchObject({
      numChunks: 8,
      chunkTokens: 65536,
      keyValues: 'host',
      attentionOutput: 'recompute',
      checkpoints: 'host',
      backwardOrder: 'keyValueOuterAscending',
    });
    expect(solve({ seqLen: '512K', policy: 'fpdt' }, 4 * 8192, 9e9).chunkTokens).toBe(32768);
    expect(solve({ seqLen: 4000, policy: 'fpdt' }, 9e9, 9e9).numChunks).toBe(1);
  });

  test("a user's chunk count and loss tiles win", () => {
    expect(solve({ seqLen: 4000, numChunks: 5, numLossTiles: 3 }, 9e9, 9e9)).toMatchObject({
      numChunks: 5,
      chunkTokens: 800,
      numLossTiles: 3,
    });
    expect(solve({ seqLen: 4001, numChunks: 5 }, 9e9, 9e9)).toMatchObject({ chunkTokens: 804, localChunkTokens: 201 });
  });
});

describe('a misfit names the smallest change that fits', () => {
  const hint = (run: object, hbmBytes: number, hostBytes: number, bend: Bend = {}): string => {
    const error = errorOf(() => solve(run, hbmBytes, hostBytes, toy, bend));
    expect(error.code).toBe('does-not-fit');
    return error.hint ?? '';
  };

  test('more chunks', () => {
    expect(hint({ seqLen: 4000, numChunks: 1 }, 1500, 4000)).toMatch(/^numChunks=8 fits: 1.46 KiB of 1.46 KiB HBM/);
  });

  test('another policy', () => {
    expect(hint({ seqLen: 4000, policy: 'ulysses' }, 6000, 9000)).toMatch(/^policy=auto \(numChunks=4\) fits: /);
  });

  test('fewer checkpoints', () => {
    const segmented: Evaluate = (strategy, input) => {
      const hostBytes = 40 / strategy.segmentLayers;
      return { hbmBytes: 0, hostBytes, fits: hostBytes <= input.cluster.hostBytes };
    };
    const error = errorOf(() => solve({ seqLen: 4000 }, 9000, 20, segmented));
    expect(error.hint).toMatch(/^segmentLayers=2 with policy=auto fits: /);
  });

  test('more GPUs, by sequence parallelism while the heads allow', () => {
    expect(hint({ seqLen: 40000 }, 2500, 16000, { model: { num_key_value_heads: 8 } })).toMatch(
      /^8 GPUs \(sequenceParallelSize=8, dataParallelSize=1, policy=auto\) fits: /,
    );
  });

  test('a shorter sequence, where the heads allow no more ranks', () => {
    expect(hint({ seqLen: 80000 }, 2500, 15000)).toMatch(/^seqLen=20000 with policy=auto fits: /);
  });

  test('and none where nothing helps', () => {
    expect(hint({ seqLen: 4000 }, 1, 1)).toBe('');
  });

  test('a ledger is explained item by item', () => {
    const pool = { capacityBytes: 1, persistent: [], instants: [], peakInstant: 'loss', fits: false } as const;
    const withLedger: Evaluate = () => ({
      fits: false,
      hbmBytes: 7,
      hostBytes: 0,
      ledger: {
        kind: 'memoryLedger',
        fits: false,
        hbm: { ...pool, pool: 'hbm', peakBytes: 7 },
        host: { ...pool, pool: 'host', peakBytes: 0, fits: true },
      },
    });
    expect(errorOf(() => solve({ seqLen: 4000 }, 1, 1, withLedger)).message).toMatch(/^HBM does not fit: 7 B needed, 1 B there/);
  });
});
