import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { type PlanInput, planRun } from '../../src/plan/planRun.js';
import { planSummary } from '../../src/plan/summary.js';

const EXAMPLES = fileURLToPath(new URL('../../examples/', import.meta.url));
const CASES: readonly (readonly [string, PlanInput])[] = [
  [
    'llama-3-8b-2M-fpdt',
    {
      model: `${EXAMPLES}llama-3-8b.json`,
      cluster: { gpus: 4, gpu: 'a100-80gb' },
      run: { seqLen: '2M', policy: 'fpdt' },
      deepspeed: { train_micro_batch_size_per_gpu: 1, zero_optimization: { stage: 3 } },
    },
  ],
  [
    'demo-auto',
    {
      model: `${EXAMPLES}demo/model.json`,
      cluster: { gpus: 2, gpu: 'cpu' },
      run: { seqLen: 16_384, numChunks: 8, policy: 'auto', numSteps: 20 },
      deepspeed: `${EXAMPLES}demo/ds_config.json`,
    },
  ],
];

/** Every buffer: where it lies, how large it is, how long it lives. */
function addresses({ buffers, arenas }: ExecutionPlan): string {
  const lines = buffers.map(({ name, pool, offset, dtype, shape, instances, instanceBytes, scope, sections }) =>
    [pool, offset, instanceBytes, `x${instances}`, name, `${dtype}[${shape.join(',')}]`, scope, sections.join(',')].join(' '),
  );
  return [`arenas: hbm ${arenas.hbm}, host ${arenas.host}`, ...lines].join('\n');
}

describe('the plan of', () => {
  it.each(CASES)('%s is as it was', async (name, input) => {
    const plan = await planRun(input);
    await expect(`${planSummary(plan)}\n\n${addresses(plan)}\n`).toMatchFileSnapshot(`../golden/plan-${name}.txt`);
  });
});
