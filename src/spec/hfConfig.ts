/** Reading a Hugging Face config.json: what every family shares. Families are catalog entries (catalog/index.ts). */
import * as z from 'zod';
import { FpdtError } from './errors.js';
import { fileOf, type JsonObject, parseWith, readJsonObject } from './parseJson.js';

export type HfConfigInput = string | JsonObject;

/** The config as an object with its `model_type`; a path is read from disk, that of a folder in its config.json. */
export function readHfConfig(input: HfConfigInput): { readonly config: JsonObject; readonly modelType: string } {
  const config = readJsonObject(typeof input === 'string' ? fileOf(input, 'config.json') : input, 'model config');
  const { model_type: modelType } = parseWith(z.looseObject({ model_type: z.string() }), config, 'model config');
  return { config, modelType };
}

/** RoPE types whose frequencies do not depend on the sequence length, so that a chunk needs only its positions. */
const STATIC_ROPE_TYPES = ['default', 'llama3', 'linear', 'yarn'];

/** Dynamic RoPE changes with the length seen: refused by name. What one family does not compute its own file says. */
export function refuseUnsupported(config: JsonObject): void {
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
