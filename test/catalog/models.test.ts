import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parameterTable, parseModel } from '../../src/catalog/index.js';
import type { ParameterTable, ParameterView } from '../../src/spec/types.js';
import { errorOf, LLAMA } from '../spec/inputs.js';

test('the published Llama-3-8B has the published number of parameters', () => {
  const model = parseModel('examples/llama-3-8b.json');
  expect(model).toMatchObject({ family: 'llama', numLayers: 32, hiddenSize: 4096, numHeads: 32, numKvHeads: 8, headDim: 128 });
  expect(parameterTable(model).numModelParameters).toBe(8_030_261_248);
});

const layerOf = ({ layers }: ParameterTable): readonly ParameterView[] => layers[0]?.weights ?? [];

describe('parameter table', () => {
  test('weights of pre first, then of post, back to back', () => {
    const table = parameterTable(parseModel(LLAMA));
    expect(layerOf(table).map(({ name }) => name)).toEqual([
      'input_layernorm.weight',
      'self_attn.q_proj.weight',
      'self_attn.k_proj.weight',
      'self_attn.v_proj.weight',
      'self_attn.o_proj.weight',
      'post_attention_layernorm.weight',
      'mlp.gate_proj.weight',
      'mlp.up_proj.weight',
      'mlp.down_proj.weight',
    ]);
    for (const group of [layerOf(table), table.head, table.embed]) {
      group.reduce((end, { offset, numel }) => {
        expect(offset).toBe(end);
        return end + numel;
      }, 0);
    }
  });

  test('a tied weight is counted once, in the region of the embedding', () => {
    const table = parameterTable(parseModel({ ...LLAMA, tie_word_embeddings: true }));
    const untied = parameterTable(parseModel(LLAMA));
    expect(table.numModelParameters).toBe(untied.numModelParameters - 128 * 64);
    expect([table.numHeadElements, table.numHeadNormElements, table.numEmbedElements]).toEqual([64, 64, 128 * 64]);
    expect(table.head.map(({ name }) => name)).toEqual(['model.norm.weight']);
    expect([untied.numHeadElements, untied.numHeadNormElements]).toEqual([64 + 128 * 64, 64]);
  });

  test('biases follow their weights', () => {
    const table = parameterTable(parseModel({ ...LLAMA, attention_bias: true, mlp_bias: true }));
    expect(layerOf(table).map(({ name }) => name)).toContain('mlp.down_proj.bias');
    expect(layerOf(table)[2]).toMatchObject({ name: 'self_attn.q_proj.bias', shape: [64] });
  });
});

describe('bad model configs', () => {
  test.each([
    [{ model_type: undefined }, 'missing-key', /model_type: expected a text, found nothing/],
    [{ attention_dropout: 0.1 }, 'unsupported', /attention_dropout: 0\.1 is not supported for llama; 0 is: recomputed/],
    [{ pretraining_tp: 2 }, 'unsupported', /pretraining_tp: 2 is not supported for llama; 1 is/],
    [{ head_dim: 7 }, 'unsupported', /RoPE of 7 dimensions of a head of 7; an even number/],
    [{ hidden_act: 'mish' }, 'unsupported', /activation 'mish'.*; supported: silu/],
    [{ hidden_size: '64' }, 'invalid-value', /hidden_size: expected a whole number of at least 1, found "64"/],
    [{ num_key_value_heads: 3 }, 'invalid-value', /8 query heads are not a multiple of 3 key\/value heads; change one of them/],
    [{ num_attention_heads: 7, num_key_value_heads: 7 }, 'invalid-value', /head_dim: .*; give head_dim or change hidden_size or/],
    [{ num_hidden_layers: 0 }, 'invalid-value', /num_hidden_layers: expected a whole number of at least 1, found 0/],
    [{ tie_word_embeddings: 'no' }, 'invalid-value', /tie_word_embeddings: expected true or false, found "no"/],
  ])('%j', (bend, code, text) => {
    const error = errorOf(() => parseModel({ ...LLAMA, ...bend }));
    expect(error.code).toBe(code);
    expect(`${error.message}; ${error.hint ?? ''}`).toMatch(text);
  });

  test('a required key under a misspelt name is found', () => {
    const { hidden_size: hidden, ...rest } = LLAMA;
    const error = errorOf(() => parseModel({ ...rest, hiden_size: hidden }));
    expect(error).toMatchObject({ code: 'missing-key', hint: "'hiden_size' was given; did you mean 'hidden_size'?" });
  });

  test('files that are missing, not JSON or not an object', () => {
    const folder = mkdtempSync(join(tmpdir(), 'fpdt-'));
    const file = (text: string): string => {
      const path = join(folder, 'config.json');
      writeFileSync(path, text);
      return path;
    };
    expect(errorOf(() => parseModel(join(folder, 'none.json'))).code).toBe('file-not-readable');
    expect(errorOf(() => parseModel(file('{"model_type":'))).code).toBe('not-json');
    expect(errorOf(() => parseModel(file('[1]'))).code).toBe('invalid-value');
    expect(parseModel(file(JSON.stringify(LLAMA))).hiddenSize).toBe(64);
  });
});
