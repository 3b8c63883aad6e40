import { describe, expect, test } from 'vitest';
import { callSeconds, computeSeconds } from '../../src/predict/computeTime.js';
import { predictRun } from '../../src/predict/predict.js';
import { POLICIES, RECOMPUTE } from '../../src/spec/strategy.js';
import { estimateComputing } from '../../src/strategy/estimateComputing.js';
import { estimateTime } from '../../src/strategy/estimateTime.js';
import { buildStrategy } from '../../src/strategy/evaluate.js';
import { estimator } from '../../src/strategy/evaluator.js';
import { type BuildInput, settingOf } from '../../src/strategy/setting.js';
import { findStrategy } from '../../src/strategy/findStrategy.js';
import { fill, optionsOf } from '../../src/strategy/search/fill.js';
import { mulberry32 } from '../../src/address/layout.js';
import { roomBytes } from '../../src/memory/ledger.js';
import { errorOf } from '../spec/inputs.js';
import { drawn, inputOf, MODEL, PUBLISHED, SEED } from './searchInputs.js';

describe('auto', () => {
  test('keeps everything on the device where that fits', () => {
    const { strategy, memory } = findStrategy(inputOf({}), estimator());
    expect(memory.fits).toBe(true);
    expect(strategy.hiddenGradients).toBe('hbm');
    expect(strategy.layers).toMatchObject([{ layers: [0, 6], keyValues: 'hbm', attentionOutput: 'hbm', checkpoints: 'hbm' }]);
  });

  test('keeps products of layers where a short sequence leaves room for them, of some where it leaves little, of none of a long one', () => {
    const find = (seqLen: string, hbmBytes: string) => {
      const input = inputOf({ run: { seqLen }, cluster: { hbmBytes, hostBytes: '400G' } });
      const { strategy } = findStrategy(input, estimator());
      const recomputed = { ...strategy, layers: strategy.layers.map((one) => ({ ...one, internals: RECOMPUTE })) };
      const [seconds, without] = [strategy, recomputed].map((one) => estimateTime(settingOf(input), one));
      const numKept = strategy.layers.reduce(
        (sum, { layers: [start, end], internals }) => sum + (internals === 'hbm' ? end - start : 0),
        0,
      );
      return { numKept, gain: (without ?? 0) / (seconds ?? 0) };
    };
    const [roomy, small, long] = [find('16K', '40G'), find('16K', '9.25G'), find('4M', '40G')];
    expect([roomy.numKept, long.numKept]).toEqual([6, 0]);
    expect(small.numKept).toBeGreaterThan(0);
    expect(small.numKept).toBeLessThan(6);
    expect(roomy.gain).toBeGreaterThan(small.gain);
    expect(small.gain).toBeGreaterThan(1);
  });

  test('keeps the outputs of layers without a window first, and counts of loss tiles are no powers of two', () => {
    const layer_types = Array.from({ length: 6 }, (_, layer) => (layer % 3 === 2 ? 'full_attention' : 'sliding_attention'));
    const model = { ...MODEL, model_type: 'ministral', sliding_window: 4096, head_dim: 128, layer_types };
    const input = inputOf({ model, cluster: { hbmBytes: '10650M', hostBytes: '5G' } });
    const setting = settingOf(input);
    const { strategy, memory } = findStrategy(input, estimator());
    expect(memory.fits).toBe(true);
    const kept = strategy.layers.filter(({ attentionOutput }) => attentionOutput !== RECOMPUTE).map(({ layers }) => layers);
    expect(kept).toEqual([
      [2, 3],
      [5, 6],
    ]);
    // Of the same places, kept in the first two layers instead.
    const [windowed, full] = strategy.layers;
    if (windowed === undefined || full === undefined) throw new Error('fewer ranges than those of the windows');
    const swapped = [
      { ...full, layers: [0, 2], segments: [1, 1] },
      { ...windowed, layers: [2, 6], segments: [1, 1, 1, 1] },
    ] as const;
    expect(estimateTime(setting, strategy)).toBeLessThan(estimateTime(setting, { ...strategy, layers: swapped }));
  });

  test('does not stop at a few large chunks, which compute more of what windows leave out', () => {
    const { config: model } = PUBLISHED.find(({ name }) => name === 'gemma-2-2b') as (typeof PUBLISHED)[number];
    const input = inputOf({ model, cluster: { gpus: 16, gpu: 'h200' }, run: { seqLen: '64K' } });
    const seconds = (run: object): number => {
      const one = { ...input, run: { ...input.run, ...run } };
      return estimateTime(settingOf(one), findStrategy(one, estimator()).strategy);
    };
    for (const numChunks of [2, 4, 8, 16]) expect(seconds({}), String(numChunks)).toBeLessThan(1.005 * seconds({ numChunks }));
  });

  test('recomputes where the host cannot keep all outputs, and is no faster with less of it', () => {
    // Six hidden states and six outputs of 256 MiB each, beside 3 GiB of the process.
    const found = ['8G', '6G', '5500M', '5G', '4500M', '4300M', '4G'].map((hostBytes) => {
      const input = inputOf({ cluster: { hbmBytes: '11G', hostBytes } });
      const { strategy, memory } = findStrategy(input, estimator());
      expect(memory.fits).toBe(true);
      const kept = strategy.layers.filter(({ attentionOutput }) => attentionOutput !== RECOMPUTE);
      return {
        numKept: kept.reduce((sum, { layers }) => sum + layers[1] - layers[0], 0),
        seconds: estimateTime(settingOf(input), strategy),
      };
    });
    expect(found[0]?.numKept).toBe(6);
    expect(found.at(-1)?.numKept).toBeLessThan(6);
    for (const [i, { seconds }] of found.entries()) {
      for (const less of found.slice(i + 1)) expect(less.seconds).toBeGreaterThan(seconds / 1.005);
    }
  });

  test('leaves the reserve free, whatever it is', () => {
    for (const hbmReserve of [0, '4%', 0.3]) {
      const { memory } = findStrategy(inputOf({ run: { hbmReserve }, cluster: { hbmBytes: '20G' } }), estimator());
      const [hbm] = memory.pools;
      expect(hbm?.reserveBytes).toBe(Math.ceil((hbmReserve === '4%' ? 0.04 : Number(hbmReserve)) * 20 * 2 ** 30));
      expect(hbm?.peakBytes).toBeLessThanOrEqual(hbm === undefined ? 0 : roomBytes(hbm));
    }
    expect(errorOf(() => inputOf({ run: { hbmReserve: 1 } }))).toMatchObject({ code: 'invalid-value', hint: expect.stringMatching(/4%/) });
    for (const hbmReserve of ['-4%', '', ' ']) expect(errorOf(() => inputOf({ run: { hbmReserve } })).code).toBe('invalid-value');
  });

  test('keeps to counts that the user fixed', () => {
    const run = { numChunks: 12, kvTileChunks: 3, segmentLayers: 2, numTokenTiles: 2, strategy: { hiddenGradients: 'host' } };
    const { strategy } = findStrategy(inputOf({ run }), estimator());
    expect(strategy).toMatchObject({ numChunks: 12, kvTileChunks: 3, numTokenTiles: 2, hiddenGradients: 'host' });
    expect(strategy.layers.flatMap(({ segments }) => segments)).toEqual([2, 2, 2]);
  });

  test('takes more chunks than it needs where the fewest wait for copies', () => {
    const heads = { num_attention_heads: 64, num_key_value_heads: 8 };
    const model = { hidden_size: 8192, num_hidden_layers: 80, intermediate_size: 28672, vocab_size: 128256, ...heads };
    const [cluster, run] = [{ gpus: 32 }, { seqLen: '256K' }];
    const input = inputOf({ model, cluster, run });
    const { strategy } = findStrategy(input, estimator());
    const seconds = (one: BuildInput): number => estimateTime(settingOf(one), findStrategy(one, estimator()).strategy);
    expect(strategy.numChunks).toBe(2);
    expect(seconds(input)).toBeLessThan(0.99 * seconds(inputOf({ model, cluster, run: { ...run, numChunks: 1 } })));
  });

  test('is deterministic', () => {
    const input = inputOf({ cluster: { hbmBytes: '11G', hostBytes: '5G' } });
    expect(findStrategy(input, estimator()).strategy).toEqual(findStrategy(input, estimator()).strategy);
  });
});

describe(`no strategy that fits is faster than auto's, seed ${SEED}`, () => {
  const clusters = [
    ['roomy', '256K', {}],
    ['a small device', '256K', { hbmBytes: '11G', hostBytes: '43G' }],
    ['a small host', '256K', { hbmBytes: '11G', hostBytes: '6G' }],
    ['short', '32K', { hbmBytes: '11G', hostBytes: '4G' }],
    ['a disk', '256K', { hbmBytes: '11G', hostBytes: '5G', diskBytes: '20G' }],
    ['two key/value heads a rank', '256K', { gpus: 2, hbmBytes: '13G', hostBytes: '12G' }],
  ] as const;
  test.each(clusters)('%s', (_, seqLen, cluster) => {
    const input = inputOf({ run: { seqLen }, cluster });
    const setting = settingOf(input);
    const best = findStrategy(input, estimator());
    expect(best.memory.fits).toBe(true);
    const seconds = estimateTime(setting, best.strategy);
    const others = drawn(setting, mulberry32(SEED), 25);
    expect(others.length).toBeGreaterThan(0);
    for (const other of others) {
      const ratio = seconds / estimateTime(setting, other);
      expect(ratio, JSON.stringify({ best: best.strategy, other })).toBeLessThanOrEqual(seqLen === '32K' ? 1.02 : 1.005);
    }
  });

  test.each(POLICIES.filter((policy) => policy !== 'auto'))('%s', (policy) => {
    const cluster = policy === 'fpdt' ? { hbmBytes: '11G', hostBytes: '43G' } : {};
    const seconds = (name: string): number => {
      const input = inputOf({ run: { policy: name }, cluster });
      const { strategy, memory } = findStrategy(input, estimator());
      expect(memory.fits).toBe(true);
      return estimateTime(settingOf(input), strategy);
    };
    expect(seconds('auto')).toBeLessThanOrEqual(seconds(policy));
  });
});

describe(`estimated seconds are those of the simulation, seed ${SEED}`, () => {
  test.each([
    ['4M', 2, 0.01],
    ['1M', 1, 0.01],
    ['128K', 4, 0.02],
    ['32K', 2, 0.08],
  ] as const)('%s tokens on %d ranks: within %d', (seqLen, gpus, bound) => {
    const setting = settingOf(inputOf({ run: { seqLen }, cluster: { gpus, hostBytes: '400G' } }));
    for (const strategy of drawn(setting, mulberry32(SEED), 8)) {
      const { schedule } = buildStrategy(setting, strategy);
      const { stepSeconds } = predictRun({ ...setting, ...schedule });
      const seconds = estimateTime(setting, strategy);
      const text = JSON.stringify(strategy);
      expect(Math.abs(seconds / stepSeconds - 1), text).toBeLessThan(bound);
      const busiest = estimateTime(setting, strategy, { enoughSeconds: 0 });
      expect(busiest, text).toBeGreaterThan(0);
      expect(busiest, text).toBeLessThanOrEqual(seconds);
      expect(estimateTime(setting, strategy, { enoughSeconds: 1.001 * seconds }), text).toBe(seconds);
      const computing = computeSeconds(schedule.programs.train.turns, setting, callSeconds({ ...setting, ...schedule }));
      expect(computing, text).toBeLessThanOrEqual(stepSeconds);
      expect(Math.abs(estimateComputing(setting, strategy) / computing - 1), text).toBeLessThan(0.002);
    }
  });
});

describe('fill', () => {
  const costs = { recompute: Array<number>(8).fill(10), rebuild: 1, rerun: 20, file: 4, internals: 2 };
  const bytes = { checkpoint: 1, output: 1, internals: 8 };
  const room = (pool: string, free: number, isFile = false) => ({ pool, isFile, isDevice: pool === 'hbm', bytes: free });
  const summary = (rooms: Parameters<typeof fill>[2]): string | undefined =>
    fill(optionsOf(costs, 0), bytes, rooms)
      ?.segments.map(({ length, attentionOutput, checkpoints }) => `${length}${checkpoints[0]}${attentionOutput[0]}`)
      .join(' ');

  test('all in the first pool where it has room, else what is left in the next', () => {
    expect(summary([room('hbm', 100), room('pinned', 100)])).toBe('1hh 1hh 1hh 1hh 1hh 1hh 1hh 1hh');
    expect(summary([room('hbm', 12), room('pinned', 100)])).toBe('1hh 1hh 1hh 1hp 1hp 1hp 1hp 1hp');
  });

  test('segments of several layers before outputs are recomputed, a file before either where it is cheaper', () => {
    expect(summary([room('pinned', 13)])).toBe('2pp 2pp 2pp 2pp');
    expect(summary([room('pinned', 12)])).toBe('2pp 2pp 2pp 1pr 1pr');
    expect(summary([room('pinned', 12), room('file', 100, true)])).toBe('2pp 2pp 2pp 2pf');
  });

  test('outputs of layers that are rebuilt where they have room, which makes longer segments cheap', () => {
    const cheap = { recompute: Array<number>(8).fill(10), rebuild: 9, rerun: 1, file: 4, internals: 2 };
    const rebuilt = (...rooms: Parameters<typeof fill>[2]) =>
      fill(optionsOf(cheap, 0, 4), bytes, rooms)?.segments.map((one) => `${one.attentionOutput[0]}${one.rebuiltOutput?.[0] ?? '-'}`);
    // Two checkpoints and three states that segments share, then three outputs of a segment.
    expect(rebuilt(room('pinned', 8))).toEqual(['rp', 'rp']);
    expect(rebuilt(room('pinned', 7))).toEqual(['r-', 'r-']);
    expect(rebuilt(room('hbm', 3), room('pinned', 5))).toEqual(['rh', 'rh']);
    expect(rebuilt(room('pinned', 5), room('file', 3, true))).toEqual(['r-', 'r-']);
    expect(fill(optionsOf(cheap, 0, 4), bytes, [room('pinned', 8)])?.seconds).toBe(8 * 10 + 6 * 1);
    expect(fill(optionsOf(cheap, 0, 4), bytes, [room('pinned', 7)])?.seconds).toBe(8 * 10 + 6 * (1 + 10));
  });

  test('outputs of the layers whose attention costs most, where a checkpoint a layer has room', () => {
    const mixed = { ...costs, recompute: [1, 1, 30, 1, 1, 30, 1, 1] };
    const kept = (free: number) =>
      fill(optionsOf(mixed, 0), { checkpoint: 1, output: 4, internals: 16 }, [room('pinned', free)])?.segments.map(
        ({ length, attentionOutput }) => `${length}${attentionOutput[0]}`,
      );
    expect(kept(16)?.join(' ')).toBe('1r 1r 1p 1r 1r 1p 1r 1r');
    expect(kept(20)?.join(' ')).toBe('1p 1r 1p 1r 1r 1p 1r 1r');
  });

  test('products of as many layers as the device has room for beside outputs, where each layer has a checkpoint', () => {
    const kept = (most: number, free: number) => {
      const found = fill(optionsOf(costs, most), bytes, [room('hbm', free), room('pinned', 100)]);
      return [found?.segments.filter(({ internals }) => internals === 'hbm').length, found?.seconds];
    };
    // Eight checkpoints, what the head reads, and eight outputs.
    expect([kept(8, 17), kept(8, 24), kept(8, 25), kept(8, 200), kept(3, 200)]).toEqual([
      [0, 16],
      [0, 16],
      [1, 14],
      [8, 0],
      [3, 0],
    ]);
    expect(fill(optionsOf(costs, 8), bytes, [room('pinned', 13)])?.segments.map(({ internals }) => internals)).toEqual(Array(4));
  });

  test('nothing where not even one checkpoint has room', () => {
    expect(summary([room('pinned', 2)])).toBeUndefined();
  });
});
