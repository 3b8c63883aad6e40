/** `tsx bench/gpu/stage.ts DEVICE FOLDER`: the plans, the tokens and the calibration job that the steps of bench/gpu read. */
import { mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { mulberry32 } from '../../src/address/layout.js';
import { calibrationJob } from '../../src/bridge/calibration.js';
import { planRun, writePlanFile } from '../../src/index.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import { type DeviceSizes, modelOf, type PlanRow, sizesOf } from './sizes.js';

const DEEPSPEED: JsonObject = {
  train_micro_batch_size_per_gpu: 1,
  bf16: { enabled: true },
  gradient_clipping: 1,
  optimizer: { type: 'AdamW', params: { lr: 1e-3, torch_adam: true } },
};
const TOKEN_SEED = 3;

const [device = '', folder = ''] = process.argv.slice(2);
const sizes = sizesOf(device);
await mkdir(folder, { recursive: true });
for (const row of sizes.plans) await writePlan(sizes, row, folder);
await writeTokens(sizes, folder);
await writeCalibration(sizes, folder);

async function writePlan(sizes: DeviceSizes, { name, model, layers, ...row }: PlanRow, folder: string): Promise<void> {
  const { policy, seqLen, numSteps, numChunks, segmentLayers, kernels } = row;
  const plan = await planRun({
    model: modelOf(sizes, model, layers),
    cluster: { gpus: 1, gpu: sizes.gpu, hostBytes: sizes.hostBytes },
    deepspeed: { ...DEEPSPEED, zero_optimization: sizes.zero },
    run: { seqLen, numSteps, seed: 1, dtype: 'bfloat16', policy, numChunks, segmentLayers, kernels },
  });
  await writePlanFile(plan, join(folder, `${name}.plan.json`));
}

/** Ids below every model's vocabulary in the small files, of the largest model's in the large one. */
async function writeTokens(sizes: DeviceSizes, folder: string): Promise<void> {
  const vocabularies = new Map(Object.keys(sizes.models).map((name) => [name, Number(modelOf(sizes, name)['vocab_size'])]));
  for (const [model, vocabSize] of vocabularies) {
    const rows = sizes.plans.filter((row) => row.model === model);
    const count = 1 + Math.max(...rows.map((row) => row.seqLen + 1));
    const random = mulberry32(TOKEN_SEED);
    await writeFile(
      join(folder, `${model}.bin`),
      new Uint8Array(Int32Array.from({ length: count }, () => Math.floor(random() * vocabSize)).buffer),
    );
  }
}

/** The job that `fpdt calibrate` would start, for a machine without Node; paths are those of the staging folder. */
async function writeCalibration(sizes: DeviceSizes, folder: string): Promise<void> {
  const { model, chunkTokens } = sizes.calibration;
  const step = sizes.steps.find(({ work }) => work === 'calibrate');
  const input = {
    model: modelOf(sizes, model),
    deepspeed: { ...DEEPSPEED, zero_optimization: sizes.zero },
    gpu: sizes.gpu,
    ranks: 1,
    chunkTokens,
    dtype: 'bfloat16' as const,
    seconds: Number(step?.sizes?.['seconds']),
  };
  const { job } = await calibrationJob(input, folder);
  await writeFile(
    join(folder, 'calibration.json'),
    JSON.stringify({ input, job: { ...job, plans: job.plans.map((path) => basename(path)) } }),
  );
}
