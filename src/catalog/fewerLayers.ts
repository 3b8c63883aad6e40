/** A model's config with fewer layers, for a model of the same layers that runs in less time. */
import { readHfConfig, type HfConfigInput } from '../spec/hfConfig.js';
import type { JsonObject } from '../spec/parseJson.js';
import { familyOf } from './families/index.js';
import { keysOf } from './model/settings.js';
import { parseModel } from './models.js';

/** Its first layers: `least` of them, or more where every kind of layer is among them only then; lists by layer are cut with them. */
export function fewerLayers(input: HfConfigInput, least: number): JsonObject {
  const { config, modelType } = readHfConfig(input);
  const model = parseModel(config);
  const { classes, classOf } = model.code;
  const kinds = classes.map((_, number) => classOf.indexOf(number) + 1);
  const wanted = Math.min(model.numLayers, Math.max(least, ...kinds));
  const setting = familyOf(modelType)?.settings['numLayers'];
  const keys = setting === undefined ? [] : keysOf(setting);
  const cut = (key: string, value: unknown): unknown => {
    if (keys.includes(key)) return wanted;
    return Array.isArray(value) && value.length === model.numLayers ? value.slice(0, wanted) : value;
  };
  return Object.fromEntries(Object.entries(config).map(([key, value]) => [key, cut(key, value)]));
}
