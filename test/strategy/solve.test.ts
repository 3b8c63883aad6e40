import { describe, expect, test } from 'vitest';
import type { MemoryLedger, PoolLedger } from '../../src/memory/ledger.js';
import { type Evaluator, estimator } from '../../src/strategy/evaluator.js';
import { settingOf } from '../../src/strategy/setting.js';
import { solveStrategy } from '../../src/strategy/solve.js';
import type { LayerStrategy, Strategy } from '../../src/spec/strategy.js';
import type { ClusterSpec } from '../../src/spec/types.js';
import { type Bend, errorOf, specs } from '../spec/inputs.js';

type Memory = Evaluator['memory'];

/** A toy cost: what is resident costs tokens, what streams costs chunks. */
const toy: Memory = ({ run, cluster }, strategy) => {
  const tokens = strategy.numChunks * strategy.localChunkTokens;
  const [layer] = strategy.layers;
  if (layer === undefined) throw new Error('a strategy without layers');
  const bytes = (pool: string): number => {
    const held = (place: string): number => (place === pool ? tokens : 0);
    const perLayer = held(layer.keyValues) + 2 * held(layer.attentionOutput) + 2 * held(layer.checkpoints);
    return (pool === 'hbm' ? 4 * strategy.localChunkTokens : 0) + perLayer;
  };
  expect(strategy.numChunks * strategy.chunkTokens).toBeGreaterThanOrEqual(run.seqLen);
  return ledgerOf({ hbm: bytes('hbm'), host: bytes('host') }, cluster);
};

function ledgerOf(needed: { readonly hbm: number; readonly host: number }, { hbmBytes, hostBytes }: ClusterSpec): MemoryLedger {
  const pool = (name: 'hbm' | 'host', kind: PoolLedger['kind'], capacityBytes: number): PoolLedger => ({
    pool: name,
    kind,
    capacityBytes,
    reserveBytes: 0,
    persistent: [],
    instants: [],
    load: { name: 'load', items: [], totalBytes: 0 },
    peakBytes: needed[name],
    peakInstant: 'loss',
    fits: needed[name] <= capacityBytes,
  });
  const pools = [pool('hbm', 'device', hbmBytes), pool('host', 'pinned', hostBytes)];
  return { kind: 'memoryLedger', fits: pools.every(({ fits }) => fits), pools };
}

/** What holds for all layers, beside the rest of the strategy. */
type Flat = Strategy & Omit<LayerStrategy, 'layers'>;

/** A range of layers is named, so that what stays open in it is chosen in order of preference; the search has tests of its own. */
const NAMED = { layers: [{ layers: [0, 4] }] };

function solve(run: object, hbmBytes: number, hostBytes: number, memory: Memory = toy, bend: Bend = {}): Flat {
  const { deepspeed, ...input } = specs({ run: { strategy: NAMED, ...run }, cluster: { gpus: 4, hbmBytes, hostBytes }, ...bend });
  const evaluate = { memory, seconds: () => 1, secondsSoon: () => 1, computeSeconds: () => 1, isHopeless: () => false };
  const strategy = solveStrategy({ ...input, deepspeed: deepspeed.config }, evaluate);
  const [layer] = strategy.layers;
  if (layer === undefined) throw new Error('a strategy without layers');
  return { ...layer, ...strategy };
}

describe('auto, in ranges that the user named', () => {
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

  test('moves k, v to the host only where recomputing does not help either', () => {
    expect(solve({ seqLen: 4000 }, 600, 3000)).toMatchObject({ checkpoints: 'host', attentionOutput: 'recompute', keyValues: 'host' });
  });

  test('is deterministic', () => {
    expect(solve({ seqLen: 4000 }, 2500, 4000)).toEqual(solve({ seqLen: 4000 }, 2500, 4000));
  });

  test('looks at a placement twice where none of its chunk counts fits', () => {
    const looked: string[] = [];
    const counting: Memory = (setting, strategy) => {
      looked.push(`${strategy.layers[0]?.checkpoints} ${strategy.numChunks}`);
      return toy(setting, strategy);
    };
    solve({ seqLen: 4000 }, 4000, 2000, counting);
    expect(looked).toEqual(['hbm 1', 'hbm 8', 'host 1', 'host 8', 'host 2', 'host 4']);
  });
});

describe('what policies fix', () => {
  test('ulysses: one chunk, all in HBM, attention recomputed', () => {
    expect(solve({ seqLen: 4000, policy: 'ulysses' }, 9e9, 1)).toMatchObject({
      numChunks: 1,
      numLossTiles: 1,
      keyValues: 'hbm',
      keyValueGradients: 'hbm',
      attentionOutput: 'recompute',
      checkpoints: 'hbm',
      backwardOrder: 'queryOuterDescending',
    });
  });

  test.each([
    ['ulysses-offload', 1, 1],
    // 16,385 tokens, 64 to a tile.
    ['alst', 1, 257],
  ])('%s: as ulysses, with layer inputs on the host', (policy, numLossTiles, numTokenTiles) => {
    const run = { seqLen: 4 * 16_385, policy };
    const { layers, ...rest } = solve({ ...run, policy: 'ulysses' }, 9e9, 9e9);
    expect(solve(run, 9e9, 9e9)).toEqual({
      ...rest,
      layers: layers.map((range) => ({ ...range, checkpoints: 'host' })),
      policy,
      checkpoints: 'host',
      numLossTiles,
      numTokenTiles,
    });
  });

  test('fpdt: chunks of 65536 tokens, halved until they fit', () => {
    expect(solve({ seqLen: '512K', policy: 'fpdt' }, 9e9, 9e9)).toMatchObject({
      numChunks: 8,
      chunkTokens: 65536,
      keyValues: 'host',
      keyValueGradients: 'hbm',
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

describe('outputs of layers that are rebuilt', () => {
  const input = (run: object, hbmBytes: string, hostBytes = '5G') => {
    const { deepspeed, ...rest } = specs({
      cluster: { gpus: 4, gpu: 'a100-80gb', hbmBytes, hostBytes },
      run: { seqLen: '64K', policy: 'fpdt', numChunks: 8, segmentLayers: 2, ...run },
    });
    return { ...rest, deepspeed: deepspeed.config };
  };
  const kept = (...args: Parameters<typeof input>) => solveStrategy(input(...args), estimator()).layers[0]?.rebuiltOutput;

  test('are kept on the device where it has room, else in pinned memory where that is faster, else not', () => {
    expect(kept({}, '9G')).toBe('hbm');
    const needed = (rebuiltOutput: string, pool: number): number => {
      const strategy = { layers: [{ layers: [0, 4], rebuiltOutput }] };
      const given = input({ strategy, hbmReserve: 0 }, '9G');
      return Math.ceil(estimator().memory(settingOf(given), solveStrategy(given, estimator())).pools[pool]?.peakBytes ?? 0);
    };
    const [without, device, host] = [needed('recompute', 0), needed('hbm', 0), needed('host', 1)];
    expect(device).toBeGreaterThan(without);
    expect(needed('host', 0)).toBeLessThan(device);
    expect(kept({ hbmReserve: 0 }, `${device}`)).toBe('hbm');
    expect(kept({ hbmReserve: 0 }, `${device - 1}`, `${host}`)).toBe('host');
    expect(kept({ hbmReserve: 0 }, `${device - 1}`, `${host - 1}`)).toBeUndefined();
  });

  test('of all layers beside keys and values in the ascending order, where that takes at most 0.2% longer and has room', () => {
    const taken = (more: number, range: object = {}, hostBytes = '5G') => {
      const strategy = { layers: [{ layers: [0, 4], ...range }] };
      const seconds = ({ layers }: Strategy): number => (layers[0]?.rebuildsLast === true ? 1 + more : 1);
      const evaluate = { ...estimator(), seconds: (_: unknown, found: Strategy) => seconds(found) };
      const [first] = solveStrategy(input({ strategy, hbmReserve: 0 }, '9G', hostBytes), evaluate).layers;
      return [first?.rebuiltOutput, first?.rebuildsLast];
    };
    expect(taken(0.002)).toEqual(['host', true]);
    expect(taken(0.003)).toEqual(['hbm', undefined]);
    expect(taken(0.003, { rebuildsLast: true })).toEqual(['host', true]);
    expect(taken(0, { rebuildsLast: false })).toEqual(['hbm', false]);
    expect(taken(0, { keyValues: 'hbm' })).toEqual(['hbm', true]);
    expect(taken(0, { backwardOrder: 'queryOuterDescending' })).toEqual(['hbm', undefined]);
    const peak = (range: object): number => {
      const given = input({ strategy: { layers: [{ layers: [0, 4], ...range }] }, hbmReserve: 0 }, '9G');
      return Math.ceil(estimator().memory(settingOf(given), solveStrategy(given, estimator())).pools[1]?.peakBytes ?? 0);
    };
    const least = peak({ rebuiltOutput: 'host', rebuildsLast: true });
    expect(least).toBe(peak({ rebuiltOutput: 'host' }));
    expect(taken(0, {}, `${least}`)).toEqual(['host', true]);
    expect(taken(0, {}, `${least - 1}`)).toEqual(['hbm', undefined]);
  });

  test('stay as a user says, and are nowhere where no layer is rebuilt or outputs are kept anyway', () => {
    const named = (range: object) => kept({ strategy: { layers: [{ layers: [0, 4], ...range }] } }, '9G');
    expect(named({ rebuiltOutput: 'recompute' })).toBe('recompute');
    expect(named({ rebuiltOutput: 'host' })).toBe('host');
    expect(named({ attentionOutput: 'host' })).toBeUndefined();
    expect(kept({ segmentLayers: 1 }, '9G')).toBeUndefined();
  });
});

describe('a misfit names the smallest change that fits', () => {
  const hint = (run: object, hbmBytes: number, hostBytes: number, bend: Bend = {}): string => {
    const error = errorOf(() => solve(run, hbmBytes, hostBytes, toy, bend));
    expect(error.code).toBe('does-not-fit');
    return error.hint ?? '';
  };

  test('more chunks', () => {
    expect(hint({ seqLen: 4000, numChunks: 1 }, 1500, 4000)).toMatch(/^numChunks=8 fits: \w+ 1.46 KiB of 1.46 KiB/i);
  });

  test('another policy', () => {
    expect(hint({ seqLen: 4000, policy: 'ulysses' }, 6000, 9000)).toMatch(/^policy=auto \(numChunks=4\) fits: /);
  });

  test('fewer checkpoints', () => {
    const segmented: Memory = ({ cluster }, { layers }) => ledgerOf({ hbm: 0, host: 10 * (layers[0]?.segments.length ?? 0) }, cluster);
    const error = errorOf(() => solve({ seqLen: 4000 }, 9000, 20, segmented));
    expect(error.hint).toMatch(/^segmentLayers=2 with policy=auto fits: /);
  });

  test('fewer checkpoints not where the user fixed the segments', () => {
    const segmented: Memory = ({ cluster }, { layers }) => ledgerOf({ hbm: 0, host: 10 * (layers[0]?.segments.length ?? 0) }, cluster);
    const run = { seqLen: 4000, strategy: { layers: [{ layers: [0, 4], segments: 1 }] } };
    const { hint: found } = errorOf(() => solve(run, 9000, 20, segmented));
    expect(found).toMatch(/^hostBytes=40 B a rank with policy=auto fits: [^;]*$/);
  });

  test('more GPUs, by sequence parallelism while the heads allow', () => {
    expect(hint({ seqLen: 40000 }, 2500, 16000, { model: { num_key_value_heads: 8 } })).toMatch(
      /^hostBytes=31.3 KiB .* fits: .*; or 8 GPUs \(sequenceParallelSize=8, dataParallelSize=1, policy=auto\): at most 1.00 s a step, 0.00222 GPU-hours; /,
    );
  });

  test('a shorter sequence, where more ranks would not help', () => {
    expect(hint({ seqLen: 80000, sequenceParallelSize: 4 }, 2500, 15000, { model: { num_attention_heads: 4 } })).toMatch(
      /^hostBytes=58.6 KiB [^;]* fits: [^;]*; or seqLen=20000 with policy=auto: at most 1.00 s a step, 0.00111 GPU-hours$/,
    );
  });

  test('and says what was tried where nothing helps', () => {
    const error = errorOf(() => solve({ seqLen: 4000 }, 1, 1));
    expect(error.hint).toMatch(/^no change that was tried makes it fit, .*; take GPUs with more memory, /);
    expect(error.details).not.toHaveProperty('changes');
  });

  test('a smaller reserve, where more is kept free than is by itself, which is nothing of a CPU', () => {
    const reserved: Memory = ({ cluster, run }) => ledgerOf({ hbm: run.hbmReserve > 0 ? 10 : 1, host: 0 }, cluster);
    expect(errorOf(() => solve({ seqLen: 4000, hbmReserve: 0.5 }, 5, 5, reserved)).hint).toMatch(/^hbmReserve=0 with policy=auto fits: /);
    const more: Memory = ({ cluster }) => ledgerOf({ hbm: cluster.numRanks > 4 ? 1 : 10, host: 0 }, cluster);
    const asked = { model: { num_key_value_heads: 8 } };
    expect(errorOf(() => solve({ seqLen: 4000, hbmReserve: 0 }, 5, 5, more, asked)).hint).toMatch(/^8 GPUs/);
  });

  test('places that the user fixed stay fixed', () => {
    const run = { seqLen: 4000, strategy: { layers: [{ layers: [0, 4], keyValues: 'hbm', attentionOutput: 'hbm', checkpoints: 'hbm' }] } };
    const tried: Strategy[] = [];
    const noting: Memory = (setting, strategy) => {
      tried.push(strategy);
      return toy(setting, strategy);
    };
    expect(errorOf(() => solve(run, 4000, 90000, noting)).hint).toMatch(/GPUs|seqLen=/);
    expect(new Set(tried.map(({ layers }) => layers[0]?.keyValues))).toEqual(new Set(['hbm']));
  });

  test('what is explained is the placement that misses by least', () => {
    expect(errorOf(() => solve({ seqLen: 4000 }, 100, 10_000)).message).toMatch(/^HBM does not fit: 500 B needed, 100 B there/);
  });

  test('a ledger is explained pool by pool', () => {
    const needed: Memory = ({ cluster }) => ledgerOf({ hbm: 7, host: 0 }, cluster);
    expect(errorOf(() => solve({ seqLen: 4000 }, 1, 1, needed)).message).toMatch(/^HBM does not fit: 7 B needed, 1 B there/);
  });
});
