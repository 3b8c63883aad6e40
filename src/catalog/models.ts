/** From a Hugging Face config to a ModelSpec, by family. */
import { FpdtError } from '../spec/errors.js';
import { type HfConfigInput, readHfConfig } from '../spec/hfConfig.js';
import { nearestKey } from '../spec/nearestKey.js';
import type { ModelSpec } from '../spec/types.js';
import { FAMILIES } from './parameters.js';

/** A config.json, by path or as an object. */
export function parseModel(input: HfConfigInput): ModelSpec {
  const { config, modelType } = readHfConfig(input);
  const family = FAMILIES.find(({ modelTypes }) => modelTypes.includes(modelType));
  if (family !== undefined) return family.translate(config);
  const known = FAMILIES.flatMap(({ modelTypes }) => modelTypes);
  const nearest = nearestKey(modelType, known);
  throw new FpdtError(`model config.model_type: '${modelType}' is not supported`, {
    code: 'unsupported',
    hint: nearest === undefined ? `supported: ${known.join(', ')}` : `did you mean '${nearest}'?`,
  });
}
