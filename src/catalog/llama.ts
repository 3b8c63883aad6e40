/** Llama and Mistral: RMSNorm, RoPE, grouped-query attention, SwiGLU (transformers/models/llama, models/mistral). */
import * as z from 'zod';
import { FpdtError } from '../spec/errors.js';
import { refuseUnsupported } from '../spec/hfConfig.js';
import { type JsonObject, parseWith } from '../spec/parseJson.js';
import type { ModelSpec, ParameterTable, ParameterView } from '../spec/types.js';
import type { ModelFamily } from './family.js';

const count = z.int().min(1);

/** The keys that sizes depend on; a Hugging Face config holds many more, which the worker's model reads. */
const schema = z.looseObject({
  hidden_size: count,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  intermediate_size: count,
  vocab_size: count,
  tie_word_embeddings: z.boolean().nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  attention_dropout: z.number().nullish(),
  pretraining_tp: z.literal(1).nullish(),
  sliding_window: count.nullish(),
});

export const llama: ModelFamily = { name: 'llama', modelTypes: ['llama', 'mistral'], translate, parameterTable };

function translate(config: JsonObject): ModelSpec {
  const c = parseWith(schema, config, 'model config');
  refuseUnsupported(config);
  const numKvHeads = keyValueHeads(config, c);
  const headDim = c.head_dim ?? c.hidden_size / c.num_attention_heads;
  if (!Number.isInteger(headDim)) {
    throw mismatch('hidden_size', c.hidden_size, 'num_attention_heads', c.num_attention_heads, 'or give head_dim');
  }
  if (c.num_attention_heads % numKvHeads !== 0) {
    throw mismatch('num_attention_heads', c.num_attention_heads, 'num_key_value_heads', numKvHeads, 'so that heads form equal groups');
  }
  return {
    kind: 'model',
    family: 'llama',
    numLayers: c.num_hidden_layers,
    hiddenSize: c.hidden_size,
    numHeads: c.num_attention_heads,
    numKvHeads,
    headDim,
    mlpWidth: c.intermediate_size,
    vocabSize: c.vocab_size,
    tieWordEmbeddings: c.tie_word_embeddings ?? false,
    windows: Array.from({ length: c.num_hidden_layers }, () => windowOf(config, c)),
    hfConfig: config,
  };
}

/** What transformers' MistralConfig has where a config names none; a Llama has as many as query heads, and no window. */
const MISTRAL_DEFAULTS = { keyValueHeads: 8, window: 4096 };

function keyValueHeads(config: JsonObject, c: z.infer<typeof schema>): number {
  const isMistral = config.model_type === 'mistral' && config.num_key_value_heads === undefined;
  return isMistral ? MISTRAL_DEFAULTS.keyValueHeads : (c.num_key_value_heads ?? c.num_attention_heads);
}

/** LlamaForCausalLM knows no sliding window, whatever its config says. */
function windowOf(config: JsonObject, c: z.infer<typeof schema>): number | null {
  if (config.model_type !== 'mistral') return null;
  return c.sliding_window === undefined ? MISTRAL_DEFAULTS.window : c.sliding_window;
}

function mismatch(larger: string, a: number, smaller: string, b: number, remedy: string): FpdtError {
  return new FpdtError(`model config: ${larger} ${a} is not a multiple of ${smaller} ${b}`, {
    code: 'invalid-value',
    hint: `change one of them, ${remedy}`,
  });
}

/** Weights in the order of use: those of `pre` first, then those of `post`. */
function parameterTable(model: ModelSpec): ParameterTable {
  const { hiddenSize: h, mlpWidth: f, vocabSize: v, headDim: d } = model;
  const queries = model.numHeads * d;
  const keys = model.numKvHeads * d;
  const attentionBias = model.hfConfig.attention_bias === true;
  const mlpBias = model.hfConfig.mlp_bias === true;
  const pre = [
    weight('input_layernorm', [h]),
    ...linear('self_attn.q_proj', queries, h, attentionBias),
    ...linear('self_attn.k_proj', keys, h, attentionBias),
    ...linear('self_attn.v_proj', keys, h, attentionBias),
  ];
  const post = [
    ...linear('self_attn.o_proj', h, queries, attentionBias),
    weight('post_attention_layernorm', [h]),
    ...linear('mlp.gate_proj', f, h, mlpBias),
    ...linear('mlp.up_proj', f, h, mlpBias),
    ...linear('mlp.down_proj', h, f, mlpBias),
  ];
  const layer = place([...pre, ...post]);
  const norm = weight('model.norm', [h]);
  const head = place(model.tieWordEmbeddings ? [norm] : [norm, weight('lm_head', [v, h])]);
  const embed = place([weight('model.embed_tokens', [v, h])]);
  return {
    layer,
    numPreElements: total(layer.slice(0, pre.length)),
    head,
    numHeadNormElements: h,
    embed,
    numLayerElements: total(layer),
    numHeadElements: total(head),
    numEmbedElements: total(embed),
    numModelParameters: model.numLayers * total(layer) + total(head) + total(embed),
  };
}

type Weight = Pick<ParameterView, 'name' | 'shape'>;

function weight(module: string, shape: readonly number[]): Weight {
  return { name: `${module}.weight`, shape };
}

function linear(module: string, outputs: number, inputs: number, bias: boolean): readonly Weight[] {
  return [weight(module, [outputs, inputs]), ...(bias ? [{ name: `${module}.bias`, shape: [outputs] }] : [])];
}

function place(weights: readonly Weight[]): readonly ParameterView[] {
  let offset = 0;
  return weights.map(({ name, shape }) => {
    const numel = shape.reduce((product, size) => product * size, 1);
    const view = { name, shape, offset, numel, trainable: true };
    offset += numel;
    return view;
  });
}

function total(views: readonly ParameterView[]): number {
  return views.reduce((sum, { numel }) => sum + numel, 0);
}
