/** Config keys that look like another spelling of one that is read. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseModel } from '../../src/catalog/index.js';
import { errorOf, LLAMA } from '../spec/inputs.js';

const { num_key_value_heads: _kv, head_dim: _dim, ...REST } = LLAMA as Record<string, unknown>;
const BARE = Object.fromEntries(Object.entries(REST).filter(([key]) => !/eps|bias|tie/.test(key)));

describe('a misspelt key that has a default is named, not skipped', () => {
  test.each([
    ['num_kv_heads', 'num_key_value_heads'],
    ['n_kv_heads', 'num_key_value_heads'],
    ['head_size', 'head_dim'],
    ['rms_norm_epsilon', 'rms_norm_eps'],
    ['tie_embeddings', 'tie_word_embeddings'],
    ['attn_bias', 'attention_bias'],
  ])('%s', (given, meant) => {
    const error = errorOf(() => parseModel({ ...BARE, [given]: 1 }));
    expect(error).toMatchObject({ code: 'unknown-key', details: { nearest: meant } });
    expect(error.message).toContain(given);
  });
});

test('keys of others pass: of the tokenizer, of training, of newer versions', () => {
  const others = { bos_token_id: 1, torch_dtype: 'bfloat16', use_cache: true, transformers_version: '5', num_experts_note: 'none' };
  expect(parseModel({ ...BARE, ...others }).numLayers).toBe(LLAMA.num_hidden_layers);
});

test('no config of a published model has a key that is taken for a misspelt one', () => {
  const models = JSON.parse(readFileSync('scripts/compat/models.json', 'utf8')) as { config: Record<string, unknown>; refused?: string }[];
  for (const { config, refused } of models) if (refused === undefined) expect(parseModel(config).numLayers).toBeGreaterThan(0);
});
