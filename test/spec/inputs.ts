/** Small valid inputs that the tests bend. */
import { parseSpecs, type SpecInput, type Specs } from '../../src/catalog/index.js';
import { FpdtError } from '../../src/spec/errors.js';

export const LLAMA = {
  model_type: 'llama',
  hidden_size: 64,
  num_hidden_layers: 4,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  intermediate_size: 96,
  vocab_size: 128,
  tie_word_embeddings: false,
  rms_norm_eps: 1e-5,
};

export type Bend = Partial<{ model: object; cluster: object; run: object; deepspeed: object }>;

/** Small enough that ZeRO's buckets would be most of its memory: without it, in the device's own dtype. */
export const WITHOUT_ZERO = { train_micro_batch_size_per_gpu: 1, bf16: { enabled: 'auto' } };

export function specs({ model = {}, cluster = {}, run = {}, deepspeed = WITHOUT_ZERO }: Bend = {}): Specs {
  return parseSpecs({
    model: { ...LLAMA, ...model },
    cluster: { gpus: 4, gpu: 'cpu', ...cluster },
    run: { seqLen: 1024, ...run } as SpecInput['run'],
    deepspeed: { ...deepspeed },
  });
}

/** The FpdtError that `action` throws. */
export function errorOf(action: () => unknown): FpdtError {
  try {
    action();
  } catch (error) {
    if (error instanceof FpdtError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}
