/** Reading a Hugging Face config.json: what every family shares. Families are catalog entries (catalog/index.ts). */
import { describe } from './describe.js';
import { FpdtError } from './errors.js';
import { fileOf } from './jsonFile.js';
import { nearestKey } from './nearestKey.js';
import { type JsonObject, readJsonObject } from './parseJson.js';
import { TYPE_WORDS } from './typeWords.js';

export type HfConfigInput = string | JsonObject;

/** The config as an object with its `model_type`; a path is read from disk, that of a folder in its config.json. */
export function readHfConfig(input: HfConfigInput): { readonly config: JsonObject; readonly modelType: string } {
  const config = readJsonObject(typeof input === 'string' ? fileOf(input, 'config.json') : input, 'model config');
  const { model_type: modelType } = config;
  if (typeof modelType === 'string' && modelType !== '') return { config, modelType };
  const nearest = modelType === undefined ? nearestKey('model_type', Object.keys(config)) : undefined;
  throw new FpdtError(`model config.model_type: expected ${TYPE_WORDS.string}, found ${describe(modelType)}`, {
    code: modelType === undefined ? 'missing-key' : 'invalid-value',
    hint: nearest === undefined ? "give the model's type, such as 'llama'" : `'${nearest}' was given; did you mean 'model_type'?`,
    details: { path: 'model config.model_type' },
  });
}
