import { describe, expect, it } from 'vitest';
import { planSummary } from '../../src/plan/summary.js';
import { formatBytes, formatSeconds } from '../../src/spec/sizes.js';
import { samplePlan } from './samplePlan.js';

describe('planSummary', () => {
  const text = planSummary(samplePlan());

  it('says what fits, what is largest and where each number comes from', () => {
    expect(text).toContain('Fits        no');
    expect(text).toContain('HBM per rank: 605 MiB of 1 GiB at optimizerStep');
    expect(text).toContain('Pinned host memory per rank: 605 MiB of 512 MiB at optimizerStep, 93 MiB too much');
    expect(text).toMatch(/model states +600 MiB +derived: 16 P \/ N/);
    expect(text).toMatch(/optimizerStep +605 MiB {2}<- peak/);
  });

  it('gives strategy, step time, exposed copies and four MFU', () => {
    expect(text).toContain(
      'Strategy    fpdt: k, v in host; attention output recomputed; layer inputs in host, every layer; backward keyValueOuterAscending',
    );
    expect(text).toMatch(/Step +\S+ m?s predicted, \S+ tokens\/s \(rates assumed: made up\)/);
    expect(text).toMatch(/layerBackward .*% {2}4 x \S+ m?s, \S+ m?s of it exposed copies/);
    expect(text).toMatch(/MFU .* causal model FLOPs; .* causal with recompute; .* full attention; .* full with recompute/);
  });

  it('is plain text', () => {
    expect(text).not.toMatch(/undefined|NaN|\n$/);
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
