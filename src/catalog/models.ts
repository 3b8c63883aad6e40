/** From a Hugging Face config to a ModelSpec, by family. */
import { FpdtError } from '../spec/errors.js';
import { type HfConfigInput, readHfConfig } from '../spec/hfConfig.js';
import { nearestKey } from '../spec/nearestKey.js';
import type { ModelSpec } from '../spec/types.js';
import { familyOf, MODEL_TYPES } from './families/index.js';
import { translate } from './model/translate.js';

/** A config.json, by path or as an object. */
export function parseModel(input: HfConfigInput): ModelSpec {
  const { config, modelType } = readHfConfig(input);
  const family = familyOf(modelType);
  if (family !== undefined) return translate(family, config);
  const nearest = nearestKey(modelType, MODEL_TYPES);
  throw new FpdtError(`model config.model_type: '${modelType}' is not supported`, {
    code: 'unsupported',
    hint: nearest === undefined ? `supported: ${MODEL_TYPES.join(', ')}` : `did you mean '${nearest}'?`,
  });
}
