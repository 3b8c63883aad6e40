/** Reading a Hugging Face config.json: what every family shares. Families are catalog entries (catalog/index.ts). */
import * as z from 'zod';
import { FpdtError } from './errors.js';
import { type JsonObject, parseWith, readJsonObject } from './parseJson.js';

export type HfConfigInput = string | JsonObject;

/** The config as an object with its `model_type`; a path is read from disk. */
export function readHfConfig(input: HfConfigInput): { readonly config: JsonObject; readonly modelType: string } {
  const config = readJsonObject(input, 'model config');
  const { model_type: modelType } = parseWith(z.looseObject({ model_type: z.string() }), config, 'model config');
  return { config, modelType };
}

/** RoPE types whose frequencies do not depend on the sequence length, so that a chunk needs only its positions. */
const STATIC_ROPE_TYPES = ['default', 'llama3', 'linear', 'yarn'];

/** Dropout is undefined under recompute, and dynamic RoPE changes with the length seen: both are refused by name. */
export function refuseUnsupported(config: JsonObject): void {
  for (const key of ['attention_dropout', 'hidden_dropout', 'resid_pdrop', 'attn_pdrop']) {
    const value = config[key];
    if (typeof value === 'number' && value > 0) {
      throw new FpdtError(`model config.${key}: dropout is not supported, found ${value}`, {
        code: 'unsupported',
        hint: `set ${key} to 0: recomputed activations would draw other masks`,
      });
    }
  }
  const type = ropeTypes(config).find((one) => !STATIC_ROPE_TYPES.includes(one));
  if (type !== undefined) {
    throw new FpdtError(`model config: RoPE type '${type}' is not supported`, {
      code: 'unsupported',
      hint: `supported: ${STATIC_ROPE_TYPES.join(', ')}, whose frequencies do not depend on the sequence length`,
    });
  }
}

/**
 * `rope_scaling.type` up to transformers 4.42, `rope_scaling.rope_type` up to 4, `rope_parameters.rope_type` from 5 on, which may
 * have parameters by kind of layer inside.
 */
function ropeTypes(config: JsonObject): readonly string[] {
  const given = [config.rope_parameters, config.rope_scaling].filter(isObject);
  const ropes = [...given, ...given.flatMap((rope) => Object.values(rope).filter(isObject))];
  return ropes.map(({ rope_type: now, type: before }) => now ?? before).filter((type) => typeof type === 'string');
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null;
}
