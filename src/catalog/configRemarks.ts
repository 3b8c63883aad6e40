/** What a user may not expect of a config that is taken: parts of it that say nothing here. Each is one sentence. */
import { isObject, type JsonObject } from '../spec/parseJson.js';
import type { ModelSpec } from '../spec/types.js';
import { familyOf } from './families/index.js';
import { unreadKeys } from './model/keys.js';

const MOST_NAMED = 6;

export function configRemarks({ family, hfConfig }: Pick<ModelSpec, 'family' | 'hfConfig'>): readonly string[] {
  return [quantizationRemark(hfConfig), codeRemark(hfConfig), classRemark(hfConfig), unreadRemark(family, hfConfig)].filter(
    (text) => text !== undefined,
  );
}

function quantizationRemark({ quantization_config: given }: JsonObject): string | undefined {
  if (!isObject(given)) return undefined;
  const method = typeof given.quant_method === 'string' ? ` (${given.quant_method})` : '';
  return `the config's quantization_config${method} is not followed: weights are trained unquantised`;
}

function codeRemark({ auto_map: given, model_type: type }: JsonObject): string | undefined {
  if (!isObject(given) || Object.keys(given).length === 0) return undefined;
  return `the config's auto_map is not followed: the model is the '${String(type)}' of transformers, and code of its own is not run`;
}

/** All that is trained here is a language model; its head has the shape of the vocabulary. */
function classRemark({ architectures }: JsonObject): string | undefined {
  const names = Array.isArray(architectures) ? architectures.filter((one) => typeof one === 'string') : [];
  const [other] = names.filter((name) => !/(?:ForCausalLM|LMHeadModel)$/.test(name));
  if (other === undefined || names.length !== 1) return undefined;
  return `the config's architectures say ${other}: what is planned is the causal language model, with a head over the vocabulary`;
}

function unreadRemark(name: string, config: JsonObject): string | undefined {
  const family = familyOf(String(config.model_type));
  const unread = family === undefined ? [] : unreadKeys(family, config);
  if (unread.length === 0) return undefined;
  const more = unread.length > MOST_NAMED ? ` and ${unread.length - MOST_NAMED} more` : '';
  return `the config has keys that no ${name} of transformers reads, which change nothing: ${unread.slice(0, MOST_NAMED).join(', ')}${more}`;
}
