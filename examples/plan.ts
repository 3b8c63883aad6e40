/**
 * Plans 2M tokens of Llama-3-8B on 4 GPUs, with each policy. Needs neither Python nor a GPU.
 *
 *   node --import tsx examples/plan.ts
 */
import { fileURLToPath } from 'node:url';
// In a project of your own: from 'fpdt'
import { type ExecutionPlan, FpdtError, planRun } from '../src/index.js';

const model = fileURLToPath(new URL('llama-3-8b.json', import.meta.url));
const cluster = { gpus: 4, gpu: 'a100-80gb' };
const deepspeed = { train_micro_batch_size_per_gpu: 1, zero_optimization: { stage: 3 }, bf16: { enabled: 'auto' } };

for (const policy of ['ulysses', 'ulysses-offload', 'alst', 'fpdt', 'auto'] as const) {
  try {
    const plan = await planRun({ model, cluster, run: { seqLen: '2M', policy }, deepspeed });
    console.log(`${policy}: ${describe(plan)}`);
  } catch (error) {
    if (!(error instanceof FpdtError)) throw error;
    console.log(`${policy}: ${error.message}`);
  }
}

function describe({ strategy, memory, prediction }: ExecutionPlan): string {
  const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  return [
    `${strategy.numChunks} chunks, k and v in ${strategy.layers[0]?.keyValues}`,
    memory.pools.map(({ pool, peakBytes, peakInstant }) => `${gib(peakBytes)} of ${pool} at ${peakInstant}`).join(', '),
    `${prediction.stepSeconds.toFixed(0)} s a step, MFU ${(100 * prediction.mfu.causalModel).toFixed(1)}%`,
  ].join('; ');
}
