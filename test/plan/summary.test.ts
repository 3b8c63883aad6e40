import { describe, expect, it } from 'vitest';
import { planSummary } from '../../src/plan/summary.js';
import { formatBytes, formatSeconds } from '../../src/spec/sizes.js';
import { samplePlan } from './samplePlan.js';

describe('planSummary', () => {
  const plan = samplePlan();
  const text = planSummary(plan);

  it('says what fits, what is largest and where each number comes from', () => {
    expect(text).toContain('Fits        no: HBM 59% full at optimizerStep, host memory 118% full at optimizerStep, disk 1% full');
    expect(text).toContain('HBM per rank: 605 MiB of 1 GiB at optimizerStep');
    expect(text).toContain('Host memory per rank: 605 MiB of 512 MiB at optimizerStep, 93 MiB too much');
    expect(text).toMatch(/model states +600 MiB +derived: 16 P \/ N/);
    expect(text).toMatch(/optimizerStep +605 MiB {2}<- peak/);
  });

  it('lists the instants of a pool only where they differ', () => {
    const still = plan.memory.pools.map((pool) => ({
      ...pool,
      instants: pool.instants.map((one) => ({ ...one, totalBytes: pool.peakBytes })),
    }));
    const lines = planSummary({ ...plan, memory: { ...plan.memory, pools: still } }).split('\n');
    expect(lines.filter((line) => line.includes('<- peak'))).toEqual([]);
    expect(lines).toContain('HBM per rank: 605 MiB of 1 GiB');
  });

  it('has a line for every range of layers', () => {
    expect(text).toContain('Strategy    auto: attention by reference, prefetch depth 2, 1 loss tile a chunk, hidden gradients in hbm');
    const lines = text.split('\n').filter((line) => /^ {2}layers? \d/.test(line));
    expect(lines).toEqual([
      '  layers 0-1    k, v in hbm, their gradients in hbm; attention output saved in hbm; layer inputs in hbm, every 2 layers; backward queryOuterDescending',
      '  layer 2       k, v in hbm, their gradients in hbm; attention output saved in disk; layer inputs in hbm, every layer; backward queryOuterDescending',
    ]);
    const [first] = plan.strategy.layers;
    if (first === undefined) throw new Error('the plan has no range of layers');
    const layers = [{ ...first, layers: [0, 5] as const, segments: [3, 2], attentionOutput: 'recompute' }];
    const changed = { ...plan.strategy, layers, kvTileChunks: 4, numTokenTiles: 2, numLossTiles: 8 };
    const other = planSummary({ ...plan, strategy: changed, kernels: { attn: 'flash2', attnBwd: 'reference' } });
    expect(other).toContain('attention output recomputed; layer inputs in hbm, every 2 or 3 layers');
    expect(other).toContain(
      'attention by flash2 forward, reference backward, prefetch depth 2, k, v fetched 4 chunks at a time, 2 token tiles a chunk, 8 loss tiles',
    );
  });

  it('gives the size of the program, its sections and features', () => {
    expect(text).toContain("Program     11 turns, 13 calls and 26 of ZeRO's");
    expect(text).toMatch(/Ops +\d+ in 13 sections: embedForward 4, layerForward 14, layerForward\.1 18,/);
    expect(text).toContain('Features    rebuild, layer-classes, file-pool');
    expect(planSummary({ ...plan, features: [] })).toContain('Features    none');
  });

  it('gives step time, copies by link, the share of the host and four MFU', () => {
    expect(text).toMatch(/Step +2\.00 s predicted, 30\.00 tokens\/s \(rates assumed: made up\)/);
    expect(text).toMatch(/layerBackward\.1 +590 ms +29\.5% {2}1 x 590 ms, 100 ms of it exposed copies/);
    expect(text).toContain(
      'Copies      1.13 KiB host to hbm, 1.13 KiB hbm to host, 1.13 KiB disk to host, 1.13 KiB host to disk a step and rank; 100 ms exposed (5.0%)',
    );
    expect(text).toContain('Host bound  150 ms (7.5%) of the step waits for the host to issue ops: larger chunks are faster');
    expect(text).toMatch(/MFU +40\.0% causal model FLOPs; 50\.0% causal with recompute; 70\.0% full attention; 90\.0% full with recompute/);
    const quiet = { ...plan.prediction, copiedBytes: {}, hostBoundSeconds: 0, isHostBound: false };
    expect(planSummary({ ...plan, prediction: quiet })).toMatch(
      /Copies +none between pools\nHost bound +0 s \(0\.0%\) of the step waits for the host to issue ops\n/,
    );
  });

  it('is plain text', () => {
    expect(text).not.toMatch(/undefined|NaN|Infinity|\n$/);
    expect(text).not.toContain('\u001b');
  });
});

describe('units', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1536, '1.50 KiB'],
    [71.2 * 1024 ** 3, '71.2 GiB'],
    [154 * 1024 ** 3, '154 GiB'],
  ])('%d bytes', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
  it.each([
    [0, '0 s'],
    [4.2e-5, '42.0 us'],
    [0.31, '310 ms'],
    [1.25, '1.25 s'],
    [3820, '3820 s'],
  ])('%d seconds', (seconds, text) => {
    expect(formatSeconds(seconds)).toBe(text);
  });
});
