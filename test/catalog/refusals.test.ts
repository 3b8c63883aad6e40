/** Models that are not trained here: the part that is not, and what is nearest. */
import { expect, test } from 'vitest';
import { parseModel } from '../../src/catalog/index.js';
import { errorOf } from '../spec/inputs.js';

test.each<[object, RegExp]>([
  [
    { model_type: 'mixtral', num_local_experts: 8 },
    /'mixtral' is not supported: it has experts \(MoE\); the nearest model_type that is: 'mistral'/,
  ],
  [{ model_type: 'qwen3_moe', num_experts: 128 }, /experts \(MoE\); the nearest model_type that is: 'qwen3'/],
  [
    { model_type: 'deepseek_v3', n_routed_experts: 256, kv_lora_rank: 512 },
    /it has experts \(MoE\), and latent attention \(MLA\); .*'llama'/,
  ],
  [{ model_type: 'qwen3_next', num_experts: 512, linear_num_value_heads: 32 }, /a state in the place of attention .*'qwen3'/],
  [{ model_type: 'rwkv' }, /it has layers with a state in the place of attention/],
  [{ model_type: 'mamba', state_size: 16 }, /it has layers with a state/],
  [{ model_type: 't5', is_encoder_decoder: true }, /it has an encoder beside the decoder; supported: cohere, /],
  [{ model_type: 'whisper', encoder_layers: 4, num_mel_bins: 80 }, /an encoder beside the decoder, and a vision, audio or other tower/],
  [{ model_type: 'bert' }, /attention to what follows \(an encoder\)/],
  [{ model_type: 'vit', image_size: 224, patch_size: 16 }, /a vision, audio or other tower/],
  [{ model_type: 'bloom' }, /ALiBi positions; .*'gpt_neox'/],
  [{ model_type: 'bitnet' }, /ternary weights \(BitNet\); .*'llama'/],
  [
    { model_type: 'gemma3', vision_config: {}, text_config: { model_type: 'gemma3_text' } },
    /save its text_config as a config.json of its own, with model_type 'gemma3_text'/,
  ],
  [{ model_type: 'llava', vision_config: {}, text_config: { model_type: 'llama' } }, /with model_type 'llama', and plan that/],
  [
    { model_type: 'qwen2_5_vl', vision_config: {}, text_config: { model_type: 'qwen2_5_vl_text' } },
    /nor is its text_config, a 'qwen2_5_vl_text'; the nearest .*'qwen2'/,
  ],
  [{ model_type: 'qwen2_5_vl', vision_config: {} }, /tower; the nearest model_type that is: 'qwen2'/],
  [
    { model_type: 'mllama', vision_config: {}, text_config: {} },
    /save its text_config as a config.json of its own, with one of these as model_type/,
  ],
  [{ model_type: 'gemma3n_text' }, /the nearest model_type that is: 'gemma'/],
  [{ model_type: 'mistrall' }, /did you mean 'mistral'\?/],
  [{ model_type: 'lama' }, /did you mean 'llama'\?/],
  [{ model_type: 'mine', num_experts: 0, kv_lora_rank: null }, /'mine' is not supported; supported: cohere, /],
  [{ model_type: 'constructor' }, /'constructor' is not supported; supported: /],
  [{ model_type: '' }, /model_type: expected a text, found ""; give the model's type, such as 'llama'/],
  [{ modeltype: 'llama' }, /model_type: expected a text, found nothing; 'modeltype' was given/],
])('%j', (config, message) => {
  const error = errorOf(() => parseModel(config as Record<string, unknown>));
  expect(`${error.message}; ${error.hint}`).toMatch(message);
});

test('a type of any length is shown in part', () => {
  expect(errorOf(() => parseModel({ model_type: 'x'.repeat(100_000) })).message).toMatch(/: 'x{60}\.\.\.' is not supported$/);
});
