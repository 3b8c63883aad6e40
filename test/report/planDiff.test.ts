import { describe, expect, it } from 'vitest';
import { diffPlans, isSame } from '../../src/report/planDiff.js';
import { planDiffToText } from '../../src/report/planDiffText.js';
import { samplePlan } from '../plan/samplePlan.js';

const plan = samplePlan();

describe('the difference of two plans', () => {
  it('of equal ones is nothing', () => {
    const diff = diffPlans(plan, samplePlan());
    expect(diff).toEqual({ kind: 'planDiff', sameDigest: true, inputs: [], strategy: [], memory: [], step: [], kindSeconds: [] });
    expect(isSame(diff)).toBe(true);
    expect(planDiffToText(diff, 'a.json', 'b.json')).toBe('a.json and b.json are the same plan');
  });

  it('names settings by their paths, also those that one plan alone has', () => {
    const { strategy } = plan;
    const [first, ...layers] = strategy.layers;
    if (first === undefined) throw new Error('the plan has no range of layers');
    const other = {
      ...plan,
      digest: 'other',
      run: { ...plan.run, seqLen: 7, attention: 'reference' },
      cluster: { ...plan.cluster, rates: { ...plan.cluster.rates, h2dBytes: 5 } },
      deepspeed: { ...plan.deepspeed, aio: {} },
      strategy: { ...strategy, layers: [{ ...first, segments: [9], keyValues: 'disk' }, ...layers] },
    };
    const diff = diffPlans(plan, other);
    expect(diff.sameDigest).toBe(false);
    expect(diff.inputs).toEqual([
      { path: 'cluster.rates.h2dBytes', a: plan.cluster.rates.h2dBytes, b: 5 },
      { path: 'run.seqLen', a: plan.run.seqLen, b: 7 },
      { path: 'run.attention', a: null, b: 'reference' },
      { path: 'deepspeed.aio', a: null, b: {} },
    ]);
    expect(diff.strategy).toEqual([
      { path: 'strategy.layers.0.segments', a: first.segments, b: [9] },
      { path: 'strategy.layers.0.keyValues', a: first.keyValues, b: 'disk' },
    ]);
    const text = planDiffToText(diff, 'a', 'b');
    expect(text).toContain('  run.attention           none -> "reference"');
    expect(text).toContain(`  strategy.layers.0.keyValues  "${first.keyValues}" -> "disk"`);
  });

  it('gives memory by item at the peaks, also of a pool that one plan alone has', () => {
    const [hbm, host] = plan.memory.pools;
    if (hbm === undefined || host === undefined) throw new Error('the plan has no pools');
    const persistent = [{ name: 'model states', bytes: 500 << 20, provenance: 'derived', note: '' } as const];
    const changed = { ...hbm, persistent, peakInstant: 'loss', peakBytes: 502 << 20 } as const;
    const { memory } = diffPlans(plan, { ...plan, memory: { ...plan.memory, pools: [changed, host] } });
    expect(memory).toEqual([
      {
        pool: 'hbm',
        peakBytes: { a: 605 << 20, b: 502 << 20 },
        capacityBytes: { a: 1 << 30, b: 1 << 30 },
        peakInstant: { a: 'optimizerStep', b: 'loss' },
        items: [
          { name: 'model states', a: 600 << 20, b: 500 << 20 },
          { name: 'scratch of optimizerStep', a: 5 << 20, b: 0 },
          { name: 'scratch of loss', a: 0, b: 2 << 20 },
        ],
      },
      expect.objectContaining({ pool: 'disk', peakInstant: { a: 'optimizerStep', b: null }, peakBytes: { a: 6 << 20, b: 0 } }),
    ]);
  });

  it('gives time by op kind, the largest change first', () => {
    const byKind = { attn: { count: 9, seconds: 0.5 }, pre: { count: 2, seconds: 3 } };
    const diff = diffPlans(plan, { ...plan, prediction: { ...plan.prediction, stepSeconds: 4, tokensPerSecond: 15, byKind } });
    expect(diff.kindSeconds).toEqual([
      { name: 'pre', a: 0, b: 3 },
      { name: 'post', a: 0.2, b: 0 },
      { name: 'attn', a: 0.4, b: 0.5 },
    ]);
    expect(diff.step.map(({ name }) => name)).toEqual(['stepSeconds', 'tokensPerSecond', 'gpuHoursPerBillionTokens']);
    const text = planDiffToText(diff, 'a', 'b');
    expect(text).toMatch(/^a -> b: the same is executed\n/);
    expect(text).toMatch(/^stepSeconds +2\.000 +4\.000 +\+2\.000$/m);
    expect(text).toMatch(/^post +200 ms +0 s +-200 ms$/m);
  });
});
