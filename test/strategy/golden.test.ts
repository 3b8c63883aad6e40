import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { planSummary } from '../../src/plan/summary.js';
import { programToText } from '../../src/schedule/programText.js';
import { type PlanInput, planRun } from '../../src/strategy/planRun.js';

const EXAMPLES = fileURLToPath(new URL('../../examples/', import.meta.url));
const DEEPSPEED = { train_micro_batch_size_per_gpu: 1, zero_optimization: { stage: 3 } };
const CASES: readonly (readonly [string, PlanInput])[] = [
  [
    'llama-3-8b-2M-fpdt',
    {
      model: `${EXAMPLES}llama-3-8b.json`,
      cluster: { gpus: 4, gpu: 'a100-80gb' },
      run: { seqLen: '2M', policy: 'fpdt', dtype: 'bfloat16' },
      deepspeed: DEEPSPEED,
    },
  ],
  [
    'llama-3-8b-1M-disk',
    {
      model: `${EXAMPLES}llama-3-8b.json`,
      cluster: { gpus: 4, gpu: 'a100-80gb', diskBytes: 2 ** 40 },
      run: {
        seqLen: '1M',
        dtype: 'bfloat16',
        policy: 'auto',
        strategy: {
          kvTileChunks: 2,
          layers: [
            { layers: [0, 24], checkpoints: 'disk', attentionOutput: 'disk', segments: 4 },
            { layers: [24, 32], checkpoints: 'host', attentionOutput: 'recompute', keyValues: 'host', keyValueGradients: 'host' },
          ],
        },
      },
      deepspeed: DEEPSPEED,
    },
  ],
  [
    'demo-auto',
    {
      model: `${EXAMPLES}demo/model/config.json`,
      cluster: { gpus: 2, gpu: 'cpu' },
      run: { seqLen: 16_384, numChunks: 8, policy: 'auto', numSteps: 20 },
      deepspeed: `${EXAMPLES}demo/ds_config.json`,
    },
  ],
];

/** Every pool and buffer: where it lies, how large it is, how long it lives; then the calls and what each waits for. */
function addresses(plan: ExecutionPlan): string {
  const { buffers, pools, programs } = plan;
  const lines = buffers.map(({ name, pool, offset, dtype, shape, instances, instanceBytes, scope }) =>
    [pool, offset, instanceBytes, `x${instances}`, name, `${dtype}[${shape.join(',')}]`, scope].join(' '),
  );
  return [
    `arenas: ${pools.map(({ name, bytes }) => `${name} ${bytes}`).join(', ')}`,
    ...lines,
    '',
    programToText(programs.train, plan),
  ].join('\n');
}

describe('the plan of', () => {
  it.each(CASES)('%s is as it was', async (name, input) => {
    const plan = await planRun(input);
    await expect(`${planSummary(plan)}\n\n${addresses(plan)}\n`).toMatchFileSnapshot(`../golden/plan-${name}.txt`);
  });
});
