/** Models that are not trained here: which part of them is not, and what is nearest that is. */
import { FpdtError } from '../spec/errors.js';
import { nearestKey } from '../spec/nearestKey.js';
import { isObject, type JsonObject } from '../spec/parseJson.js';
import { MODEL_TYPES } from './families/index.js';
import { valueAt } from './model/settings.js';
import refusals from './refusals.json' with { type: 'json' };

const { parts: PARTS, textConfigs: TEXT_CONFIGS } = refusals;
const NEAREST: ReadonlyMap<string, string> = new Map(Object.entries(refusals.nearest));
const LONG = 60;

/** For a config of a model_type without a family. */
export function refuseModel(config: JsonObject, modelType: string): FpdtError {
  const parts = PARTS.filter(({ keys, types }) => types.includes(modelType) || keys.some((key) => isSet(config[key])));
  const names = parts.map(({ part }) => part);
  const what = names.length === 0 ? '' : `: it has ${names.join(', and ')}`;
  const name = modelType.length > LONG ? `${modelType.slice(0, LONG)}...` : modelType;
  return new FpdtError(`model config.model_type: '${name}' is not supported${what}`, {
    code: 'unsupported',
    hint: textHint(config) ?? nearestHint(modelType, parts),
    details: { modelType: name, parts: names },
  });
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false && value !== 0;
}

/** Many models that see or hear have a language model inside, whose config can be planned alone. */
function textHint(config: JsonObject): string | undefined {
  const key = TEXT_CONFIGS.find((one) => isObject(valueAt(config, one)));
  if (key === undefined) return undefined;
  const type = (valueAt(config, key) as JsonObject).model_type;
  if (typeof type !== 'string')
    return `save its ${key} as a config.json of its own, with one of these as model_type: ${MODEL_TYPES.join(', ')}`;
  if (!MODEL_TYPES.includes(type)) return `nor is its ${key}, a '${type}'; ${nearestHint(type, PARTS)}`;
  return `its text part is: save its ${key} as a config.json of its own, with model_type '${type}', and plan that`;
}

/** A misspelt type is asked about only where nothing says that the model is of another kind. */
function nearestHint(modelType: string, parts: readonly { readonly nearest?: string }[]): string {
  const kin = NEAREST.get(modelType) ?? kinOf(modelType);
  const misspelt = parts.length === 0 ? nearestKey(modelType, MODEL_TYPES) : undefined;
  if (kin === undefined && misspelt !== undefined) return `did you mean '${misspelt}'?`;
  const nearest = kin ?? parts.find((part) => part.nearest !== undefined)?.nearest;
  return nearest === undefined ? `supported: ${MODEL_TYPES.join(', ')}` : `the nearest model_type that is: '${nearest}'`;
}

/** `qwen3` for `qwen3_moe`, `gemma` for `gemma3n`: the longest type that this one begins with, up to the end of a word or a number. */
function kinOf(modelType: string): string | undefined {
  const kin = MODEL_TYPES.filter((type) => modelType.startsWith(type) && !/^[a-z]/.test(modelType.slice(type.length)));
  const stem = /^[a-z]{3,}(?=\d|_|$)/.exec(modelType)?.[0];
  const alike = MODEL_TYPES.find((type) => stem !== undefined && type.startsWith(stem) && /^\d*$/.test(type.slice(stem.length)));
  return kin.toSorted((a, b) => b.length - a.length)[0] ?? alike;
}
