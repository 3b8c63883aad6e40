/** The small models, ds_configs and token files that parity and mutation runs use. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ExecutionPlan, planRun } from '../../src/index.js';
import { mulberry32 } from '../../src/plan/layout.js';
import type { PolicyName } from '../../src/spec/types.js';
import type { ParityCase } from './cases.js';

const NUM_HEADS = 8;
const KV_HEADS = { mha: NUM_HEADS, gqa: 4, mqa: 1 } as const;
const VOCAB_SIZE = 61;
/** Not a multiple of anything: every case pads. */
const SEQ_LEN = 59;

export function smallModel(heads: ParityCase['heads'], tied: boolean): Record<string, unknown> {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_act: 'silu',
    hidden_size: 64,
    intermediate_size: 96,
    num_hidden_layers: 4,
    num_attention_heads: NUM_HEADS,
    num_key_value_heads: KV_HEADS[heads],
    head_dim: 8,
    vocab_size: VOCAB_SIZE,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    attention_dropout: 0,
    attention_bias: false,
    mlp_bias: false,
    initializer_range: 0.1,
    tie_word_embeddings: tied,
  };
}

export function smallDeepSpeed(stage: number, accumulation: number): Record<string, unknown> {
  return {
    train_micro_batch_size_per_gpu: 1,
    gradient_accumulation_steps: accumulation,
    gradient_clipping: 1,
    zero_optimization: {
      stage,
      ...(stage === 3
        ? {
            stage3_param_persistence_threshold: 0,
            stage3_max_live_parameters: 0,
            stage3_max_reuse_distance: 0,
            stage3_prefetch_bucket_size: 0,
          }
        : {}),
      ...(stage > 0 ? { reduce_bucket_size: 20_000 } : {}),
    },
    optimizer: { type: 'AdamW', params: { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, torch_adam: true } },
  };
}

export interface CaseOptions {
  readonly dtype?: 'float32' | 'bfloat16';
  readonly numSteps?: number;
}

export async function planCase(one: ParityCase, { dtype = 'float32', numSteps = 1 }: CaseOptions = {}): Promise<ExecutionPlan> {
  return await planRun({
    model: smallModel(one.heads, one.tied),
    cluster: { gpus: one.sequenceParallelSize * one.dataParallelSize, gpu: 'cpu' },
    deepspeed: smallDeepSpeed(one.zeroStage, one.gradientAccumulationSteps),
    run: {
      seqLen: SEQ_LEN,
      sequenceParallelSize: one.sequenceParallelSize,
      dataParallelSize: one.dataParallelSize,
      policy: one.policy as PolicyName,
      numChunks: one.numChunks,
      segmentLayers: one.segmentLayers,
      lossScale: one.lossScale,
      dtype,
      numSteps,
      seed: 7,
    },
  });
}

/** What the unsharded model depends on: cases with the same key share their reference runs. */
export function referenceKey(one: ParityCase): string {
  return `${one.heads}-${one.tied ? 'tied' : 'untied'}-acc${one.gradientAccumulationSteps}-dp${one.dataParallelSize}`;
}

/** Token file of random bytes. */
export async function writeTokens(folder: string): Promise<string> {
  const random = mulberry32(5);
  const path = join(folder, 'tokens.bytes');
  await writeFile(
    path,
    Uint8Array.from({ length: 4096 }, () => Math.floor(random() * VOCAB_SIZE)),
  );
  return path;
}
