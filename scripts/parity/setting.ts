/** The small models, ds_configs, strategies and token files that parity and mutation runs use. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { mulberry32 } from '../../src/address/layout.js';
import { type ExecutionPlan, planRun } from '../../src/index.js';
import { MODEL_DTYPES, type ModelDtype } from '../../src/spec/dtype.js';
import { type ForcedLayerStrategy, type ForcedStrategy, POLICIES } from '../../src/spec/strategy.js';
import type { ParityCase } from './cases.js';

const NUM_LAYERS = 4;
const NUM_HEADS = 8;
const KV_HEADS = { mha: NUM_HEADS, gqa: 4, gqa2: 2, mqa: 1 } as const;
export const VOCAB_SIZE = 61;
/** Not a multiple of anything: every case pads. */
export const SEQ_LEN = 59;

export interface ModelShape {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly tied: boolean;
  readonly window: number | null;
}

export function smallModel({ numHeads, numKvHeads, tied, window }: ModelShape): Record<string, unknown> {
  return {
    ...(window === null
      ? { architectures: ['LlamaForCausalLM'], model_type: 'llama', attention_bias: false, mlp_bias: false }
      : { architectures: ['MistralForCausalLM'], model_type: 'mistral', sliding_window: window }),
    hidden_act: 'silu',
    hidden_size: 8 * numHeads,
    intermediate_size: 96,
    num_hidden_layers: NUM_LAYERS,
    num_attention_heads: numHeads,
    num_key_value_heads: numKvHeads,
    head_dim: 8,
    vocab_size: VOCAB_SIZE,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    attention_dropout: 0,
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

/** The case's choices, all of them forced. */
export function strategyOf(one: ParityCase): ForcedStrategy {
  return {
    numChunks: one.numChunks,
    kvTileChunks: one.kvTileChunks,
    numLossTiles: one.numLossTiles,
    numTokenTiles: one.numTokenTiles,
    prefetchDepth: one.prefetchDepth,
    ...(one.headGroups === 1 ? {} : { headGroups: one.headGroups }),
    hiddenGradients: one.hiddenGradients,
    layers:
      one.ranges === 'one'
        ? [rangeOf(one, [0, NUM_LAYERS])]
        : [rangeOf(one, [0, NUM_LAYERS - 1]), rangeOf(opposite(one), [NUM_LAYERS - 1, NUM_LAYERS])],
  };
}

function rangeOf(one: ParityCase, layers: readonly [number, number]): ForcedLayerStrategy {
  const { keyValues, keyValueGradients, attentionOutput, rebuiltOutput, rebuildsLast, internals, checkpoints, backwardOrder } = one;
  return {
    layers,
    keyValues,
    keyValueGradients,
    attentionOutput,
    rebuiltOutput,
    internals,
    rebuildsLast,
    checkpoints,
    backwardOrder,
    segments: segmentsOf(one, layers[1] - layers[0]),
  };
}

function segmentsOf({ segments }: ParityCase, numLayers: number): readonly number[] {
  if (segments === 'unequal') return numLayers > 2 ? [numLayers - 1, 1] : [numLayers];
  const length = segments === 'ones' ? 1 : 2;
  return Array.from({ length: Math.ceil(numLayers / length) }, (_, i) => Math.min(length, numLayers - i * length));
}

/** Another choice wherever there is one. */
function opposite(one: ParityCase): ParityCase {
  const isOuter = one.backwardOrder === 'keyValueOuterAscending';
  return {
    ...one,
    keyValues: one.keyValues === 'hbm' ? 'host' : 'hbm',
    keyValueGradients: 'hbm',
    attentionOutput: one.attentionOutput === 'recompute' ? 'host' : 'recompute',
    internals: one.internals === 'recompute' ? 'hbm' : 'recompute',
    checkpoints: one.checkpoints === 'host' ? 'hbm' : 'host',
    backwardOrder: isOuter || one.window !== null || one.headGroups > 1 ? 'queryOuterDescending' : 'keyValueOuterAscending',
  };
}

export interface CaseOptions {
  readonly dtype?: ModelDtype;
  readonly numSteps?: number;
}

/** With few tokens a gradient is large: the default scale would overflow at once. */
const SMALL_FP16 = { enabled: true, initial_scale_power: 10 };

export async function planCase(one: ParityCase, { dtype = 'float32', numSteps = 1 }: CaseOptions = {}): Promise<ExecutionPlan> {
  const isHalf = dtype === 'float16';
  return await planRun({
    model: smallModel({ numHeads: NUM_HEADS, numKvHeads: KV_HEADS[one.heads], tied: one.tied, window: one.window }),
    cluster: { gpus: one.sequenceParallelSize * one.dataParallelSize, gpu: 'cpu', diskBytes: '1G', ...(isHalf ? { float16: true } : {}) },
    deepspeed: { ...smallDeepSpeed(one.zeroStage, one.gradientAccumulationSteps), ...(isHalf ? { fp16: SMALL_FP16 } : {}) },
    run: {
      seqLen: SEQ_LEN,
      sequenceParallelSize: one.sequenceParallelSize,
      dataParallelSize: one.dataParallelSize,
      strategy: strategyOf(one) as unknown as Record<string, unknown>,
      attention: one.kernel,
      lossScale: one.lossScale,
      dtype,
      numSteps,
      seed: 7,
      packing: one.packing,
    },
  });
}

/** What the unsharded model depends on: cases with the same key share their reference runs. */
export function referenceKey(one: ParityCase): string {
  const window = one.window === null ? 'causal' : `window${one.window}`;
  return `${one.heads}-${window}-${one.tied ? 'tied' : 'untied'}-acc${one.gradientAccumulationSteps}-dp${one.dataParallelSize}${one.packing ? '-packed' : ''}`;
}

/** Plans whose heads no case above has, or that a policy chooses. */
export interface NamedPlan {
  readonly name: string;
  /** Plans with the same key share their reference runs. */
  readonly key: string;
  readonly plan: () => Promise<ExecutionPlan>;
  /** Options of the worker beside the usual ones. */
  readonly options?: Readonly<Record<string, unknown>>;
}

const LAYOUTS = [
  { numHeads: 8, numKvHeads: 2, ranks: 4 },
  { numHeads: 8, numKvHeads: 1, ranks: 4 },
  { numHeads: 8, numKvHeads: 2, ranks: 8 },
  { numHeads: 12, numKvHeads: 4, ranks: 6 },
  { numHeads: 6, numKvHeads: 6, ranks: 4 },
  { numHeads: 6, numKvHeads: 2, ranks: 4 },
] as const;

export function namedPlans(): readonly NamedPlan[] {
  const run = { seqLen: SEQ_LEN, seed: 7, numSteps: 1 };
  const layouts = LAYOUTS.map(({ numHeads, numKvHeads, ranks }, i): NamedPlan => {
    const policy = i % 2 === 0 ? 'fpdt' : 'auto';
    return {
      name: `heads ${numHeads}/${numKvHeads} P${ranks} ${policy}`,
      key: `heads-${numHeads}-${numKvHeads}`,
      plan: () =>
        planRun({
          model: smallModel({ numHeads, numKvHeads, tied: false, window: null }),
          cluster: { gpus: ranks, gpu: 'cpu' },
          deepspeed: smallDeepSpeed(3, 1),
          run: { ...run, sequenceParallelSize: ranks, policy, numChunks: 3 },
        }),
    };
  });
  const policies = POLICIES.map(
    (policy): NamedPlan => ({
      name: `policy ${policy} P2`,
      key: 'heads-2-1',
      plan: () =>
        planRun({
          // Narrower than a rank has tokens, so that `alst` has tiles.
          model: smallModel({ numHeads: 2, numKvHeads: 1, tied: false, window: null }),
          cluster: { gpus: 2, gpu: 'cpu' },
          deepspeed: smallDeepSpeed(3, 1),
          run: { ...run, sequenceParallelSize: 2, policy, segmentLayers: policy === 'auto' ? 3 : 1 },
        }),
    }),
  );
  return [...layouts, ...policies, ...[true, false].map(onDisk), inGroups('float32'), inGroups('bfloat16')];
}

/** Every head by itself: the most that gradients of a layer's input are sums of. */
function inGroups(dtype: ModelDtype): NamedPlan {
  return {
    name: 'heads 8/8 P1 in 8 groups',
    key: 'heads-8-8',
    plan: () =>
      planRun({
        model: smallModel({ numHeads: 8, numKvHeads: 8, tied: false, window: null }),
        cluster: { gpus: 1, gpu: 'cpu' },
        deepspeed: smallDeepSpeed(3, 1),
        run: { seqLen: SEQ_LEN, seed: 7, numSteps: 1, policy: 'auto', numChunks: 3, headGroups: 8, dtype },
      }),
  };
}

/** The twins that kernels beside attention are held against, as a plan runs them. */
export function plainPlans(): readonly NamedPlan[] {
  return MODEL_DTYPES.map((dtype) => ({
    name: 'plain kernels P2',
    key: 'heads-8-8',
    plan: () =>
      planRun({
        model: smallModel({ numHeads: 8, numKvHeads: 8, tied: false, window: null }),
        cluster: { gpus: 2, gpu: 'cpu', float16: true },
        deepspeed: { ...smallDeepSpeed(3, 1), ...(dtype === 'float16' ? { fp16: SMALL_FP16 } : {}) },
        run: { seqLen: SEQ_LEN, seed: 7, numSteps: 1, policy: 'fpdt', numChunks: 3, kernels: 'plain', dtype },
      }),
  }));
}

/** Layer inputs and attention outputs in a file, past the page cache (refused where the file system cannot) or through it. */
function onDisk(direct: boolean): NamedPlan {
  return {
    name: `disk ${direct ? 'O_DIRECT' : 'buffered'} P2`,
    key: 'heads-8-4',
    options: { disk_direct: direct },
    plan: () =>
      planRun({
        model: smallModel({ numHeads: 8, numKvHeads: 4, tied: false, window: null }),
        cluster: { gpus: 2, gpu: 'cpu', diskBytes: '1G' },
        deepspeed: smallDeepSpeed(3, 1),
        run: {
          seqLen: SEQ_LEN,
          seed: 7,
          numSteps: 1,
          sequenceParallelSize: 2,
          numChunks: 3,
          strategy: { layers: [{ layers: [0, NUM_LAYERS], attentionOutput: 'disk', checkpoints: 'disk', segments: 2 }] },
        },
      }),
  };
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
