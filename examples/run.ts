/**
 * Plans and trains a small Llama on 2 CPU ranks, and reads the run's events. Needs the Python environment (`npm run setup`).
 *
 *   node --import tsx examples/run.ts <file to train on>
 */
import { fileURLToPath } from 'node:url';
// In a project of your own: from 'fpdt'
import { launchRun, planRun } from '../src/index.js';

const data = process.argv[2] ?? fileURLToPath(import.meta.url);
const plan = await planRun({
  model: fileURLToPath(new URL('demo/model/config.json', import.meta.url)),
  deepspeed: fileURLToPath(new URL('demo/ds_config.json', import.meta.url)),
  cluster: { gpus: 2, gpu: 'cpu' },
  run: { seqLen: 1024, numChunks: 4, policy: 'fpdt', numSteps: 3 },
});
const [hbm] = plan.memory.pools;
console.log(`planned: ${hbm?.peakBytes} bytes of ${hbm?.pool}, ${plan.prediction.copiedBytes.h2d} bytes fetched a step`);

const run = await launchRun(plan, { data });
for await (const event of run) {
  if (event.type === 'step') console.log(`step ${event.step.step}: loss ${event.step.loss?.toFixed(4)}, ${event.step.tokens} tokens`);
}
const result = await run.result;
console.log(
  `measured: ${result.poolBytes['hbm']} bytes of hbm, ${(result.copiedBytes['h2d'] ?? 0) / result.steps.length} bytes fetched a step`,
);
