/** The code of a small Llama, for plans and models written by hand. */
import { parseModel } from '../../src/catalog/index.js';
import type { ModelCode } from '../../src/spec/modelCode.js';

export interface CodeSizes {
  readonly layers?: number;
  readonly hidden?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly mlpWidth?: number;
  readonly vocab?: number;
}

export function sampleCode({ layers = 1, hidden = 32, heads = 4, kvHeads = 2, mlpWidth = 64, vocab = 64 }: CodeSizes = {}): ModelCode {
  return parseModel({
    model_type: 'llama',
    num_hidden_layers: layers,
    hidden_size: hidden,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    intermediate_size: mlpWidth,
    vocab_size: vocab,
  }).code;
}
