import { describe, expect, it } from 'vitest';
import { planToJson } from '../../src/report/planJson.js';
import { samplePlan } from '../plan/samplePlan.js';

describe('a plan as JSON', () => {
  const plan = samplePlan();
  const json = planToJson(plan);

  it('has what people ask for, and sizes in place of what is large', () => {
    expect(json).toMatchObject({
      kind: 'planSummary',
      version: 2,
      fits: false,
      digest: plan.digest,
      features: plan.features,
      numTurns: 11,
      numCalls: 39,
    });
    expect(json.numOps).toMatchObject({ embedForward: 4, 'layerForward.1': 18, optimizerStep: 1 });
    expect(json.numBuffers).toBe(plan.buffers.length);
    for (const key of ['sections', 'programs', 'buffers', 'parameters', 'layout', 'attributes']) expect(json).not.toHaveProperty(key);
  });

  it('comes back as it was', () => {
    expect(JSON.parse(JSON.stringify(json))).toEqual(json);
  });
});
