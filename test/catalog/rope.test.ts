/** Rotary settings of configs, as modeling_rope_utils.py of transformers checks and uses them. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseModel } from '../../src/catalog/index.js';
import { errorOf, LLAMA } from '../spec/inputs.js';

type Config = Readonly<Record<string, unknown>>;

const FAMILIES = JSON.parse(readFileSync('test/families.json', 'utf8')) as Readonly<Record<string, Config>>;
const LLAMA3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 };
const YARN = { rope_type: 'yarn', factor: 4 };

test.each<object | null>([
  null,
  {},
  LLAMA3,
  { type: 'linear', factor: 2 },
  { rope_type: 'default', mrope_section: [2, 1, 1] },
  { rope_type: 'linear', type: 'linear', factor: 8, rope_theta: 5e5 },
  YARN,
  { ...YARN, beta_fast: null, beta_slow: null, attention_factor: null, truncate: false, mscale: 1, mscale_all_dim: 1 },
])('RoPE %j is taken, under either name', (rope) => {
  for (const key of ['rope_scaling', 'rope_parameters']) expect(parseModel({ ...LLAMA, [key]: rope }).family).toBe('llama');
  expect(parseModel({ ...LLAMA, rope_scaling: rope, rope_parameters: rope }).family).toBe('llama');
});

describe('what is wrong is named', () => {
  test.each<[unknown, RegExp]>([
    ['linear', /rope_scaling: expected an object or null, found "linear"/],
    [[1], /rope_scaling: expected an object or null/],
    [{ rope_type: 'dynamic', factor: 2 }, /RoPE type 'dynamic' is not supported; supported: default, llama3, linear, yarn/],
    [{ type: 'longrope' }, /RoPE type 'longrope'/],
    [{ rope_type: 'constructor' }, /RoPE type 'constructor'/],
    [{ rope_type: null, type: 'linear', factor: 2 }, /rope_scaling.rope_type is null but/],
    [{ rope_type: 7 }, /rope_scaling.rope_type: expected a text, found 7/],
    [{ rope_type: 'linear' }, /rope_scaling.factor: expected a number >= 1, found nothing; give a number >= 1/],
    [{ rope_type: 'linear', factor: null }, /rope_scaling.factor: expected a number >= 1, found null/],
    [{ rope_type: 'linear', factor: 0.5 }, /rope_scaling.factor: expected a number >= 1, found 0.5/],
    [{ rope_type: 'linear', facter: 2 }, /rope_scaling.facter: there is no such rotary setting; did you mean 'factor'/],
    [{ rope_type: 'llama3', factor: 8 }, /rope_scaling.low_freq_factor: expected a number > 0, found nothing/],
    [{ ...LLAMA3, high_freq_factor: 1 }, /high_freq_factor 1 is not above low_freq_factor 1/],
    [{ ...LLAMA3, original_max_position_embeddings: 64.5 }, /original_max_position_embeddings: expected a whole number >= 1/],
    [{ ...YARN, betafast: 16 }, /betafast: there is no such rotary setting; did you mean 'beta_fast'/],
    [{ ...YARN, beta_fast: 1, beta_slow: 32 }, /beta_fast 1 is below beta_slow 32/],
    [{ ...YARN, rope_theta: 1 }, /the logarithm of rope_theta, which is 1/],
    [{ ...YARN, attention_factor: -1 }, /attention_factor: expected a number >= 0 or null/],
    [{ ...YARN, truncate: 'no' }, /truncate: expected true or false/],
    [{ rope_theta: 0 }, /rope_scaling.rope_theta: expected a number > 0, found 0/],
    [{ partial_rotary_factor: 0.5 }, /partial_rotary_factor: llama does not read it; all of a head turns/],
    [
      { full_attention: { rope_type: 'linear', factor: 2 } },
      /rope_scaling.full_attention: llama does not read it; its layers have one kind/,
    ],
  ])('%j', (rope, message) => {
    const error = errorOf(() => parseModel({ ...LLAMA, rope_scaling: rope }));
    expect(`${error.message}; ${error.hint}`).toMatch(message);
  });

  test.each<[string, Config, RegExp]>([
    ['llama', { rope_theta: null }, /rope_theta: expected a number > 0, found null/],
    ['llama', { rope_theta: -1 }, /rope_theta: expected a number > 0 or null, found -1/],
    ['llama', { partial_rotary_factor: 0.5 }, /partial_rotary_factor: llama does not read it/],
    ['phi', { partial_rotary_factor: 1.5 }, /RoPE of 12 dimensions of a head of 8/],
    ['gpt2', { rope_scaling: { type: 'linear', factor: 2 } }, /rope_scaling: gpt2 does not read it; its positions are not rotary/],
    [
      'gpt_neox',
      { rope_theta: 1e6 },
      /rope_theta: 1000000 is not supported for gpt_neox; null is: the base of rotary positions is rotary_emb_base/,
    ],
    [
      'gemma3_text',
      { rope_parameters: { rope_type: 'linear', factor: 2 } },
      /rope_parameters.rope_type: gemma3_text does not read it; put the settings under/,
    ],
    ['gemma3_text', { rope_parameters: { full_attention: { rope_type: 'linear' } } }, /rope_parameters.full_attention.factor: expected/],
    ['gemma3_text', { rope_parameters: { full_attention: { rope_theta: 1e5 } }, rope_theta: 1e6 }, /rope_theta is 1000000 but/],
    ['gemma3_text', { sliding_window_pattern: 0 }, /sliding_window_pattern: expected a whole number >= 1/],
    ['exaone4', { sliding_window: null }, /expected layer_types where sliding_window is null/],
    ['gpt_neo', { attention_types: [[['global', 'local'], 7]] }, /expected as many layers in attention_types/],
    ['gpt_neo', { attention_types: [] }, /expected attention_types to be like/],
    ['gpt_neo', { attention_types: [[['global', 'local'], null]], num_hidden_layers: 24 }, /expected attention_types to be like/],
    ['helium', { head_dim: 4 }, /expected num_attention_heads heads of head_dim to be hidden_size together/],
  ])('%s with %j', (name, bend, message) => {
    const error = errorOf(() => parseModel({ ...FAMILIES[name], ...bend }));
    expect(`${error.message}; ${error.hint}`).toMatch(message);
  });

  test('settings of each kind of layers are taken, and what is null among them', () => {
    const settings = { full_attention: { rope_type: 'linear', factor: 8, rope_theta: 1e6 }, sliding_attention: null };
    expect(parseModel({ ...FAMILIES.gemma3_text, rope_parameters: settings, rope_theta: 1e6 }).family).toBe('gemma3_text');
  });
});
