import { describe, expect, it } from 'vitest';
import { planCost } from '../../src/plan/cost.js';
import { planSummary } from '../../src/plan/summary.js';
import { samplePlan } from './samplePlan.js';

const sample = samplePlan();
/** 2 s a step, 1000 tokens a second: half an hour of all ranks is 900 steps, a billion tokens a million seconds. */
const plan = {
  ...sample,
  cluster: { ...sample.cluster, numRanks: 36 },
  prediction: { ...sample.prediction, stepSeconds: 2, tokensPerSecond: 1000 },
};

describe('what training by a plan costs', () => {
  it('is the time of all ranks, and money where an hour has a price', () => {
    expect(planCost(plan)).toEqual({ gpuHoursPerStep: 0.02, gpuHoursPerBillionTokens: 10_000 });
    expect(planCost(plan, 2.5)).toEqual({
      gpuHoursPerStep: 0.02,
      gpuHoursPerBillionTokens: 10_000,
      usdPerGpuHour: 2.5,
      usdPerStep: 0.05,
      usdPerBillionTokens: 25_000,
    });
  });

  it.each([Number.NaN, -1, 0, Number.POSITIVE_INFINITY])('takes no price of %d', (price) => {
    expect(() => planCost(plan, price)).toThrow(/expected a number above 0, found/);
  });

  it('is a line of the summary', () => {
    expect(planSummary(plan)).toContain('\nGPU hours   0.02000 a step, 10000 a billion tokens\n');
    expect(planSummary(plan, 2.5)).toContain('a billion tokens; at $2.5 each $0.05000 a step, $25000 a billion tokens\n');
  });
});
