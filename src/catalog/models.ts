/** From a Hugging Face config to a ModelSpec, by family. */
import { type HfConfigInput, readHfConfig } from '../spec/hfConfig.js';
import type { ModelSpec } from '../spec/types.js';
import { familyOf } from './families/index.js';
import type { TrainingRequest } from './model/training.js';
import { translate } from './model/translate.js';
import { refuseModel } from './refusals.js';

/** A config.json, by path or as an object, and what of the model trains. */
export function parseModel(input: HfConfigInput, training: TrainingRequest = {}): ModelSpec {
  const { config, modelType } = readHfConfig(input);
  const family = familyOf(modelType);
  if (family === undefined) throw refuseModel(config, modelType);
  return translate(family, config, training);
}
