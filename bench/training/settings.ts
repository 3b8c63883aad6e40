/** Model, ds_config and text of `npm run bench:training`. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { standardLibrary } from '../../scripts/demo/python.js';

export const NUM_RANKS = 2;
export const SEQ_LEN = 512;
/** Forward in rows of this many tokens, each on a rank of its own: documents cross both. */
export const NUM_CHUNKS = 4;

export const MODEL = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_act: 'silu',
  hidden_size: 128,
  intermediate_size: 352,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 32,
  vocab_size: 256,
  max_position_embeddings: 4096,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  attention_bias: false,
  mlp_bias: false,
  tie_word_embeddings: false,
};

/** A step takes as many sequences in both: ours one after the other on all ranks, the peer's one on each. */
export function deepspeedConfig(accumulationSteps: number, isBf16: boolean) {
  return {
    train_micro_batch_size_per_gpu: 1,
    gradient_accumulation_steps: accumulationSteps,
    gradient_clipping: 1.0,
    bf16: { enabled: isBf16 },
    zero_optimization: { stage: 3, offload_optimizer: { device: 'cpu' } },
    optimizer: { type: 'AdamW', params: { lr: 2e-3, betas: [0.9, 0.95], weight_decay: 0.1 } },
    scheduler: { type: 'WarmupLR', params: { warmup_min_lr: 0, warmup_max_lr: 2e-3, warmup_num_steps: 30 } },
  };
}

/**
 * Writes at most `numDocuments` of Python's standard library, a byte a token: what stands there between two blank lines and more, of a few
 * tens of tokens up to a sequence. A 32nd as many are held out, of every eighth file.
 */
export function writeDocuments(python: string, paths: { readonly data: string; readonly heldOut: string }, numDocuments: number): void {
  const folder = standardLibrary(python);
  const files = readdirSync(folder)
    .filter((name) => name.endsWith('.py'))
    .sort();
  const rows = (held: boolean): string =>
    files
      .filter((_, index) => (index % 8 === 0) === held)
      .flatMap((name) => documentsOf(readFileSync(join(folder, name))))
      .slice(0, held ? Math.ceil(numDocuments / 32) : numDocuments)
      .map((document) => `${JSON.stringify({ input_ids: [...document] })}\n`)
      .join('');
  writeFileSync(paths.data, rows(false));
  writeFileSync(paths.heldOut, rows(true));
}

const LEAST_BYTES = 16;

function documentsOf(source: Buffer): readonly Buffer[] {
  return source
    .toString('latin1')
    .split(/\n{3,}/)
    .map((text) => Buffer.from(text.slice(0, SEQ_LEN), 'latin1'))
    .filter(({ length }) => length >= LEAST_BYTES);
}
