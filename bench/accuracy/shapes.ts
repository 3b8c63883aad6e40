/** The shapes that predictions are held against: models that run in seconds on two cores. */
import { existsSync, readFileSync } from 'node:fs';
import type { JsonObject } from '../../src/spec/parseJson.js';
import type { ModelDtype } from '../../src/spec/dtype.js';

export interface Shape {
  readonly name: string;
  readonly config: JsonObject;
  readonly dtype: ModelDtype;
  readonly ranks: number;
  readonly numChunks: number;
  readonly chunkTokens: number;
}

const LLAMA = { model_type: 'llama', max_position_embeddings: 65536, rms_norm_eps: 1e-5, tie_word_embeddings: false, vocab_size: 512 };

const ALL: readonly Shape[] = [
  {
    name: 'grouped heads of 64, 2 ranks',
    config: { ...LLAMA, hidden_size: 256, intermediate_size: 688, num_hidden_layers: 3, num_attention_heads: 4, num_key_value_heads: 2 },
    dtype: 'float32',
    ranks: 2,
    numChunks: 4,
    chunkTokens: 1024,
  },
  {
    name: 'heads of 128, 2 ranks, bf16',
    config: { ...LLAMA, hidden_size: 512, intermediate_size: 1376, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 4 },
    dtype: 'bfloat16',
    ranks: 2,
    numChunks: 4,
    chunkTokens: 1024,
  },
  {
    name: 'grouped heads of 128, long, 1 rank',
    config: { ...LLAMA, hidden_size: 256, intermediate_size: 512, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1 },
    dtype: 'float32',
    ranks: 1,
    numChunks: 6,
    chunkTokens: 1024,
  },
  {
    name: 'large vocabulary, tied, biases, 2 ranks',
    config: {
      model_type: 'qwen2',
      max_position_embeddings: 65536,
      tie_word_embeddings: true,
      vocab_size: 8192,
      hidden_size: 256,
      intermediate_size: 768,
      num_hidden_layers: 3,
      num_attention_heads: 4,
      num_key_value_heads: 4,
    },
    dtype: 'float32',
    ranks: 2,
    numChunks: 4,
    chunkTokens: 1024,
  },
  {
    name: 'window of 512 tokens, 2 ranks',
    config: {
      ...LLAMA,
      model_type: 'mistral',
      sliding_window: 512,
      hidden_size: 256,
      intermediate_size: 688,
      num_hidden_layers: 3,
      num_attention_heads: 4,
      num_key_value_heads: 2,
    },
    dtype: 'float32',
    ranks: 2,
    numChunks: 6,
    chunkTokens: 512,
  },
  {
    name: 'deep, many short chunks, 1 rank, bf16',
    config: { ...LLAMA, hidden_size: 256, intermediate_size: 688, num_hidden_layers: 6, num_attention_heads: 4, num_key_value_heads: 2 },
    dtype: 'bfloat16',
    ranks: 1,
    numChunks: 6,
    chunkTokens: 512,
  },
];

/** PyTorch multiplies bf16 8 to 30 times slower than fp32 where a CPU has no AVX-512 (measured with 2.13 on AVX2): chunks are as much shorter there. */
const SLOW_BF16 = 8;
const CPU_FACTS = '/proc/cpuinfo';

/** Six of them, on this machine. */
export const SHAPES: readonly Shape[] = ALL.map((shape) =>
  shape.dtype === 'bfloat16' && isSlowInBf16() ? { ...shape, chunkTokens: shape.chunkTokens / SLOW_BF16 } : shape,
);

/** Linux on x86 alone tells; elsewhere it is taken for fast. */
function isSlowInBf16(): boolean {
  if (!existsSync(CPU_FACTS)) return false;
  const flags = /^flags\s*:(.*)$/m.exec(readFileSync(CPU_FACTS, 'utf8'))?.[1];
  return flags !== undefined && !/\bavx512bw\b/.test(flags);
}
