import { describe, expect, test } from 'vitest';
import type { PredictInput } from '../../src/predict/input.js';
import { optimizerRates } from '../../src/predict/measured/optimizer.js';

/** A step whose time the update takes all of. */
function probe(numTrainedParameters: number, seconds: number) {
  const plan = { run: { zeroStage: 0 }, parameters: { numTrainedParameters }, cluster: { numRanks: 1 } } as PredictInput;
  return {
    plan,
    numbers: { 'kind/optimizerStep/count': 1, 'kind/optimizerStep/seconds': seconds, 'adam/count': 1, 'adam/seconds': seconds },
  };
}

describe('the optimizer that was measured', () => {
  test('has fixed seconds of nothing, and never less, where its update takes the whole step', () => {
    // For some of these numbers seconds / owned * owned is more than seconds.
    for (let owned = 1; owned < 200; owned++) {
      for (const seconds of [0.1, 0.0331, 0.7]) {
        const { optimizerStepSeconds, optimizerSecondsPerParameter } = optimizerRates([probe(owned, seconds)]);
        expect(optimizerStepSeconds).toBeGreaterThanOrEqual(0);
        expect(optimizerStepSeconds).toBeLessThan(1e-15);
        expect(optimizerSecondsPerParameter).toBe(seconds / owned);
      }
    }
  });
});
