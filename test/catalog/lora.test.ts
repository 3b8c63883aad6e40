/** Adapters of a model: peft's config as it is read, the modules that it names, and what their programs and table then have. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parameterTable, parseModel } from '../../src/catalog/index.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import { parseLora } from '../../src/spec/loraConfig.js';
import type { ModelSpec } from '../../src/spec/types.js';
import { errorOf, LLAMA as BASE, specs } from '../spec/inputs.js';

const LLAMA = { ...BASE, num_hidden_layers: 2 };
const SEVEN = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];
const LORA = { r: 4, lora_alpha: 8, target_modules: ['q_proj', 'down_proj'] };

const modelWith = (lora: JsonObject): ModelSpec => parseModel(LLAMA, { lora: parseLora(lora) });

/** By layer the modules that have adapters, with their ranks and scales. */
function adapters(lora: JsonObject): readonly (readonly string[])[] {
  const { code } = modelWith(lora);
  return code.classOf.map((kind) => {
    const { pre, post } = code.classes[kind] ?? code.classes[0] ?? { pre: { instructions: [] }, post: { instructions: [] } };
    const all = [...pre.instructions, ...post.instructions];
    return all.flatMap(({ writes, weights: [weight] }, i) => {
      if (weight?.name.endsWith('.lora_B.default.weight') !== true) return [];
      const next = all[i + 1];
      const scale = next?.op === 'scale' && next.reads[0] === writes[0] ? next.attributes['by'] : 1;
      return [`${weight.name.replace('.lora_B.default.weight', '')} r${weight.shape[1]} x${scale}`];
    });
  });
}

describe('targets are matched as peft matches them', () => {
  const two = ['self_attn.q_proj r4 x2', 'mlp.down_proj r4 x2'];
  test.each<readonly [string, JsonObject, readonly (readonly string[])[]]>([
    ['names', {}, [two, two]],
    ['ends of names', { target_modules: ['self_attn.q_proj', 'model.layers.1.mlp.down_proj'] }, [two.slice(0, 1), two]],
    [
      'a regular expression over whole names',
      { target_modules: String.raw`.*\.(q|k)_proj` },
      [
        ['self_attn.q_proj r4 x2', 'self_attn.k_proj r4 x2'],
        ['self_attn.q_proj r4 x2', 'self_attn.k_proj r4 x2'],
      ],
    ],
    ['all linear ones', { target_modules: 'all-linear', exclude_modules: '.*_proj|nothing', lora_alpha: 4 }, []],
    ['without some', { exclude_modules: ['down_proj'] }, [two.slice(0, 1), two.slice(0, 1)]],
    ['of some layers', { layers_to_transform: 1 }, [[], two]],
    [
      'of ranks and scales of their own',
      { rank_pattern: { down_proj: 2 }, alpha_pattern: { 'layers.0.*q_proj': 4 } },
      [
        ['self_attn.q_proj r4 x1', 'mlp.down_proj r2 x4'],
        ['self_attn.q_proj r4 x2', 'mlp.down_proj r2 x4'],
      ],
    ],
    [
      'by the root of the rank',
      { use_rslora: true },
      [two.map((one) => one.replace('x2', 'x4')), two.map((one) => one.replace('x2', 'x4'))],
    ],
  ])('%s', (what, more, expected) => {
    if (what === 'all linear ones') {
      expect(errorOf(() => adapters({ ...LORA, ...more }))).toMatchObject({ code: 'nothing-trains' });
      expect(adapters({ ...LORA, target_modules: 'all-linear' })[0]).toHaveLength(SEVEN.length);
      return;
    }
    expect(adapters({ ...LORA, ...more })).toEqual(expected);
  });
});

describe('a model with adapters', () => {
  const model = modelWith(LORA);
  const table = parameterTable(model);

  test('trains them and nothing else', () => {
    const weights = [...(table.layers[0]?.weights ?? []), ...table.head, ...table.embed];
    expect(weights.filter(({ trainable }) => trainable).map(({ name, shape, offset }) => [name, shape, offset])).toEqual([
      ['self_attn.q_proj.lora_A.default.weight', [4, 64], 0],
      ['self_attn.q_proj.lora_B.default.weight', [64, 4], 256],
      ['mlp.down_proj.lora_A.default.weight', [4, 96], 512],
      ['mlp.down_proj.lora_B.default.weight', [64, 4], 896],
    ]);
    expect(table.numTrainedParameters).toBe(2 * 1152);
    expect(weights.map(({ name }) => name)).toContain('self_attn.q_proj.base_layer.weight');
    expect(weights.map(({ name }) => name)).toContain('self_attn.k_proj.weight');
    expect(model.code.embedBwd.instructions).toEqual([]);
  });

  test('makes the inner values of a fused module once', () => {
    const gpt2 = parseModel(
      { model_type: 'gpt2', n_layer: 1, n_embd: 32, n_head: 4, vocab_size: 40, resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 },
      { lora: parseLora({ ...LORA, target_modules: ['c_attn'] }) },
    );
    const uses = gpt2.code.classes[0]?.pre.instructions.flatMap(({ weights }) => weights) ?? [];
    expect(uses.filter(({ name }) => name === 'attn.c_attn.lora_A.default.weight')).toHaveLength(1);
    expect(uses.filter(({ name }) => name === 'attn.c_attn.lora_B.default.weight').map(({ part }) => part)).toEqual([
      [0, 32],
      [32, 64],
      [64, 96],
    ]);
  });

  test('carries the keys that peft makes adapters by, and no others', () => {
    const given = { ...LORA, peft_type: 'LORA', task_type: 'CAUSAL_LM', inference_mode: true, peft_version: '0.21.2', use_dora: false };
    expect(modelWith(given).lora).toEqual({ ...LORA, task_type: 'CAUSAL_LM' });
    expect('lora' in parseModel(LLAMA)).toBe(false);
  });
});

describe('a config that is not run', () => {
  test.each<readonly [JsonObject, string, string, string]>([
    [{ r: 0 }, 'invalid-value', 'lora config.r', ''],
    [{ lora_alpha: 0 }, 'invalid-value', 'lora config.lora_alpha: expected a number that is not 0', ''],
    [{ lora_dropout: 0.05 }, 'unsupported', 'lora config.lora_dropout: 0.05', '0 is: recomputed'],
    [{ bias: 'all' }, 'unsupported', 'lora config.bias', '"none" is'],
    [{ use_dora: true }, 'unsupported', 'lora config.use_dora', 'false is: plain LoRA'],
    [{ init_lora_weights: 'pissa' }, 'unsupported', 'lora config.init_lora_weights: "pissa"', 'true or false or "gaussian" is'],
    [{ modules_to_save: ['lm_head'] }, 'unsupported', 'lora config.modules_to_save', 'null or [] is'],
    [{ peft_type: 'IA3' }, 'unsupported', 'lora config.peft_type: "IA3"', '"LORA" is'],
    [{ lora_alhpa: 8 }, 'unknown-key', "lora config: unknown key 'lora_alhpa'", "did you mean 'lora_alpha'?"],
    [{ target_modules: null }, 'missing-key', 'lora config.target_modules: expected names of modules, found null', "'all-linear' is every"],
    [{ target_modules: ['q_prj'] }, 'no-such-module', "no linear module matches 'q_prj'", "did you mean 'q_proj'?"],
    [{ target_modules: ['q_proj', 'query_key_value'] }, 'no-such-module', "matches 'query_key_value'", 'there are q_proj, k_proj'],
    [{ target_modules: ['lm_head'] }, 'unsupported', "'lm_head' has no adapters here", 'q_proj, k_proj'],
    [{ target_modules: ['embed_tokens'] }, 'unsupported', "'model.embed_tokens' has no adapters here", 'linear modules'],
    [{ target_modules: '.*norm' }, 'unsupported', "input_layernorm' has no adapters", 'linear modules'],
    [{ target_modules: '(?P<a>q_proj' }, 'invalid-value', 'is no regular expression that is read here', 'list the names'],
    [{ rank_pattern: { up_proj: 2 } }, 'no-such-module', "lora config.rank_pattern: no linear module matches 'up_proj'", 'did you mean'],
    [{ layers_to_transform: [0, 2] }, 'invalid-value', 'there is no layer 2', 'from 0 to 1'],
    [{ target_modules: 'all-linear', layers_to_transform: [0] }, 'invalid-value', 'peft takes it with a list', 'list the names'],
  ])('%j', (more, code, message, hint) => {
    const error = errorOf(() => modelWith({ ...LORA, ...more }));
    expect(error).toMatchObject({ code });
    expect(error.message).toContain(message);
    expect(error.hint ?? '').toContain(hint);
  });

  test('that is missing, is no JSON, or stands beside --freeze', () => {
    expect(errorOf(() => parseLora('/nowhere/adapter_config.json'))).toMatchObject({ code: 'file-not-readable' });
    const path = join(mkdtempSync(join(tmpdir(), 'fpdt-lora-')), 'adapter_config.json');
    writeFileSync(path, '{"r": 4,');
    expect(errorOf(() => parseLora(path))).toMatchObject({ code: 'not-json' });
    writeFileSync(path, JSON.stringify(LORA));
    expect(specs({ run: { lora: path } }).model.lora).toEqual(LORA);
    const error = errorOf(() => specs({ run: { lora: path, freeze: ['*norm*'] } }));
    expect(error).toMatchObject({ code: 'invalid-value', message: 'run.freeze: with LoRA nothing but adapters trains anyway' });
  });
});
