/** Config keys: misspelt ones are named, types are those of transformers, two spellings of one setting agree. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { configRemarks } from '../../src/catalog/configRemarks.js';
import { parseModel } from '../../src/catalog/index.js';
import { isOfType, wordsOfType } from '../../src/catalog/model/keyTypes.js';
import { errorOf, LLAMA } from '../spec/inputs.js';

type Config = Readonly<Record<string, unknown>>;

const { num_key_value_heads: _kv, head_dim: _dim, ...REST } = LLAMA as Record<string, unknown>;
const BARE = Object.fromEntries(Object.entries(REST).filter(([key]) => !/eps|bias|tie/.test(key)));
const FAMILIES = JSON.parse(readFileSync('test/families.json', 'utf8')) as Readonly<Record<string, Config>>;

describe('a misspelt key that has a default is named, not skipped', () => {
  test.each([
    ['num_kv_heads', 'num_key_value_heads'],
    ['n_kv_heads', 'num_key_value_heads'],
    ['head_size', 'head_dim'],
    ['rms_norm_epsilon', 'rms_norm_eps'],
    ['layer_norm_eps', 'rms_norm_eps'],
    ['tie_embeddings', 'tie_word_embeddings'],
    ['attn_bias', 'attention_bias'],
    ['attention_bais', 'attention_bias'],
    ['rope_scalling', 'rope_scaling'],
    ['ropeTheta', 'rope_theta'],
    ['ROPE_THETA', 'rope_theta'],
    ['rope-theta', 'rope_theta'],
    ['activation_function', 'hidden_act'],
    ['initialiser_range', 'initializer_range'],
    ['pad_token_ids', 'pad_token_id'],
  ])('%s', (given, meant) => {
    const error = errorOf(() => parseModel({ ...BARE, [given]: 1 }));
    expect(error).toMatchObject({ code: 'unknown-key', details: { nearest: meant } });
    expect(error.message).toContain(given);
  });
});

test('keys of others pass: of the tokenizer, of training, of newer versions; and what looks like one that is there', () => {
  const others = {
    bos_token_id: 1,
    torch_dtype: 'bfloat16',
    use_cache: true,
    transformers_version: '5',
    num_experts_note: 'none',
    eod_token_id: 3,
  };
  expect(parseModel({ ...BARE, ...others }).numLayers).toBe(LLAMA.num_hidden_layers);
  expect(parseModel({ ...LLAMA, n_kv_heads: 99, hidden_dim: 7 }).numKvHeads).toBe(LLAMA.num_key_value_heads);
});

test('no config of a published model, and none of the small ones, has a key that is taken for a misspelt one', () => {
  const models = JSON.parse(readFileSync('scripts/compat/models.json', 'utf8')) as { config: Config; refused?: string }[];
  const taken = [...models.filter(({ refused }) => refused === undefined).map(({ config }) => config), ...Object.values(FAMILIES)];
  expect(taken.length).toBeGreaterThan(100);
  for (const config of taken) expect(parseModel(config).numLayers).toBeGreaterThan(0);
});

describe('types', () => {
  test.each<[string, unknown, boolean]>([
    ['int', 3, true],
    ['int', 3.5, false],
    ['int', true, false],
    ['int', 2 ** 53, false],
    ['int >=1 | null', 0, false],
    ['int >=1 | null', null, true],
    ['float >0', 1e-9, true],
    ['float >0', 0, false],
    ['float >=0 <=1', 1, true],
    ['float >=0 <=1', 1.01, false],
    ['float', '1', false],
    ['bool', 0, false],
    ['str', '', true],
    ['list[str]', ['a', 'b'], true],
    ['list[str]', ['a', 1], false],
    ['list[int] | null', [1, 2], true],
    ['dict', {}, true],
    ['dict', [], false],
    ['dict[int]', { 0: 'LABEL_0' }, true],
    ['dict[int]', { a: 'LABEL_0' }, false],
  ])('%s takes %j: %j', (type, value, taken) => {
    expect(isOfType(value, type)).toBe(taken);
  });

  test('in words; one that is none is an error of the family', () => {
    expect(wordsOfType('int >=1 | list[int] | null')).toBe('a whole number >= 1 or a list of whole numbers or null');
    expect(() => isOfType(1, 'integer')).toThrow(/no type 'integer'/);
  });

  test.each<[Config, RegExp]>([
    [{ max_position_embeddings: '4K' }, /max_position_embeddings: expected a whole number >= 1, found "4K"/],
    [{ rms_norm_eps: null }, /rms_norm_eps: expected a number >= 0, found null; leave 'rms_norm_eps' out/],
    [{ rms_norm_eps: -1e-6 }, /rms_norm_eps: expected a number >= 0, found -0.000001/],
    [{ initializer_range: 2 }, /initializer_range: expected a number >= 0 <= 1, found 2/],
    [{ eos_token_id: ['a'] }, /eos_token_id: expected a whole number or a list of whole numbers or null/],
    [{ torch_dtype: 'bf16' }, /torch_dtype: expected bfloat16 \| float16/],
    [{ id2label: { a: 'b' } }, /id2label: expected an object whose keys are whole numbers/],
    [{ per_layer_config: [{}] }, /per_layer_config: \[{}\] is not supported; layers of one config/],
    [{ quantization_config: { quant_method: 'bitnet' } }, /quant_method: "bitnet" is not supported; its layers compute with ternary/],
    [{ pad_token_id: 128 }, /pad_token_id: 128 is no row of an embedding of 128; give null/],
    [{ hidden_size: 66, head_dim: 8 }, /expected hidden_size to be a multiple of num_attention_heads; change one/],
    [{ num_hidden_layers: 1e9 }, /num_hidden_layers: 1000000000 is more than the 10000/],
    [{ vocab_size: 2 ** 31, tie_word_embeddings: true }, /vocab_size: 2147483648 is more than/],
    [{ vocab_size: 2 ** 31 - 1, hidden_size: 2 ** 20 }, /parameters are more than the 281474976710656/],
  ])('of %j', (bend, message) => {
    const { message: found, hint } = errorOf(() => parseModel({ ...LLAMA, ...bend }));
    expect(`${found}; ${hint}`).toMatch(message);
  });

  test('a pad token from the end, as torch has it', () => {
    expect(parseModel({ ...LLAMA, pad_token_id: -1 }).vocabSize).toBe(128);
  });
});

describe('two spellings of one setting', () => {
  const gpt2 = FAMILIES.gpt2 as Config;
  test('may both be there, where they agree', () => {
    expect(parseModel({ ...gpt2, hidden_size: gpt2.hidden_size ?? gpt2.n_embd }).hiddenSize).toBe(32);
  });

  test.each<[string, Config, RegExp]>([
    ['gpt2', { n_embd: 32, hidden_size: 64 }, /n_embd is 32 but model config.hidden_size is 64; they are one setting/],
    ['falcon', { n_embed: 64 }, /n_embed is 64 but model config.hidden_size is 32/],
    [
      'llama',
      { rope_theta: 1e6, rope_parameters: { rope_theta: 1e4 } },
      /rope_theta is 1000000 but model config.rope_parameters.rope_theta is 10000/,
    ],
    [
      'llama',
      { rope_scaling: { type: 'linear', factor: 2 }, rope_parameters: { rope_theta: 5 } },
      /rope_scaling is .* but model config.rope_parameters is/,
    ],
    ['llama', { rope_scaling: { type: 'linear', rope_type: 'yarn', factor: 2 } }, /rope_type is "yarn" but .*type is "linear"/],
    ['phi', { partial_rotary_factor: 0.5, rope_parameters: { partial_rotary_factor: 0.25 } }, /partial_rotary_factor is 0.5 but/],
  ])('that disagree in %s: %j', (name, bend, message) => {
    const error = errorOf(() => parseModel({ ...FAMILIES[name], ...bend }));
    expect(error.code).toBe('conflict');
    expect(`${error.message}; ${error.hint}`).toMatch(message);
  });
});

describe('remarks', () => {
  const remarksOn = (bend: Config): readonly string[] => configRemarks(parseModel({ ...LLAMA, ...bend }));

  test('none of a plain config', () => {
    expect(remarksOn({ architectures: ['LlamaForCausalLM'], quantization_config: null, auto_map: {}, _note: 1 })).toEqual([]);
    expect(configRemarks(parseModel({ ...(FAMILIES.gpt2 as Config), architectures: ['GPT2LMHeadModel'] }))).toEqual([]);
  });

  test.each<[Config, RegExp]>([
    [
      { quantization_config: { quant_method: 'gptq', bits: 4 } },
      /quantization_config \(gptq\) is not followed: weights are trained unquantised/,
    ],
    [{ quantization_config: { load_in_8bit: true } }, /quantization_config is not followed/],
    [{ auto_map: { AutoModelForCausalLM: 'modeling_mine.Mine' } }, /auto_map is not followed: the model is the 'llama' of transformers/],
    [
      { architectures: ['LlamaForSequenceClassification'] },
      /say LlamaForSequenceClassification: what is planned is the causal language model/,
    ],
    [{ my_own: 1, another: 2 }, /no llama of transformers reads, which change nothing: my_own, another$/],
    [Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`extra${i}`, i])), /extra5 and 2 more$/],
  ])('of %j', (bend, message) => {
    expect(remarksOn(bend)).toEqual([expect.stringMatching(message)]);
  });
});
