/** `tsx bench/gpu/plans.ts FOLDER`: the plans and the token file that smoke.py runs on one GPU. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { planRun, writePlanFile } from '../../src/index.js';
import { mulberry32 } from '../../src/address/layout.js';

const MODEL = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_act: 'silu',
  hidden_size: 512,
  intermediate_size: 1024,
  num_hidden_layers: 4,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 64,
  vocab_size: 256,
  max_position_embeddings: 16_384,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  attention_dropout: 0,
  tie_word_embeddings: false,
};
const RUNS = [
  { name: 'ulysses', policy: 'ulysses' },
  { name: 'fpdt', policy: 'fpdt', numChunks: 8 },
  { name: 'fpdt-segment2', policy: 'fpdt', numChunks: 8, segmentLayers: 2 },
  { name: 'auto', policy: 'auto', numChunks: 8 },
] as const;
const SEQ_LEN = 8192;

const [folder = 'bench/gpu/staging'] = process.argv.slice(2);
await mkdir(folder, { recursive: true });
for (const { name, ...choice } of RUNS) {
  const plan = await planRun({
    model: MODEL,
    cluster: { gpus: 1, gpu: 'h200-141gb' },
    deepspeed: {
      train_micro_batch_size_per_gpu: 1,
      bf16: { enabled: true },
      gradient_clipping: 1,
      zero_optimization: { stage: 3, stage3_param_persistence_threshold: 0 },
      optimizer: { type: 'AdamW', params: { lr: 1e-3, torch_adam: true } },
    },
    run: { seqLen: SEQ_LEN, numSteps: 3, seed: 1, ...choice },
  });
  await writePlanFile(plan, join(folder, `${name}.plan.json`));
}
const random = mulberry32(3);
await writeFile(
  join(folder, 'tokens.bytes'),
  Uint8Array.from({ length: 4 * SEQ_LEN }, () => Math.floor(random() * 256)),
);
