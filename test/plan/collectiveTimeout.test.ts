import { expect, test } from 'vitest';
import { collectiveTimeoutSeconds } from '../../src/plan/collectiveTimeout.js';
import { planRun } from '../../src/strategy/planRun.js';
import { LLAMA } from '../spec/inputs.js';

test.each([
  [0.5, 1800],
  [600, 1800],
  [600.1, 1801],
  [7000, 21000],
])('steps of %d s leave a collective %d s', (stepSeconds, expected) => {
  expect(collectiveTimeoutSeconds({ stepSeconds })).toBe(expected);
});

test('a plan says it of its own step', async () => {
  const plan = await planRun({
    model: { ...LLAMA, num_hidden_layers: 64 },
    cluster: { gpus: 1, gpu: 'a100-80gb', hostBytes: 2 ** 42 },
    run: { seqLen: 2 ** 21, policy: 'fpdt', numChunks: 8 },
    deepspeed: { train_micro_batch_size_per_gpu: 1, bf16: { enabled: true } },
  });
  expect(plan.prediction.stepSeconds).toBeGreaterThan(600);
  expect(plan.collectiveTimeoutSeconds).toBe(Math.ceil(3 * plan.prediction.stepSeconds));
});
