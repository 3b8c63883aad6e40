/** Models of benchmarks that plan: published sizes, all in the code of Llama with heads of 128. */

/** Layers, widths and heads of Llama 3.2 1B and 3B, Llama 2 7B and 13B, whose queries share no keys, Llama 3 8B and 70B, Qwen 2.5 32B. */
const SIZES = {
  '1B': [16, 2048, 8192, 32, 8],
  '3B': [28, 3072, 8192, 24, 8],
  '7B': [32, 4096, 11008, 32, 32],
  '8B': [32, 4096, 14336, 32, 8],
  '13B': [40, 5120, 13824, 40, 40],
  '32B': [64, 5120, 27648, 40, 8],
  '70B': [80, 8192, 28672, 64, 8],
} as const;
export type ModelName = keyof typeof SIZES;

/** The config of a Hugging Face model that has learned `maxTokens` positions. */
export function modelConfig(name: ModelName, maxTokens: number) {
  const [layers, hidden, intermediate, heads, kvHeads] = SIZES[name];
  return {
    model_type: 'llama',
    num_hidden_layers: layers,
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: 128,
    vocab_size: 128256,
    max_position_embeddings: maxTokens,
  };
}
