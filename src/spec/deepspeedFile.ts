/** A ds_config as DeepSpeed takes one (DeepSpeedConfig, runtime/config.py): a path of an Hjson file, base64 of its text, or an object. */
import { describe } from './describe.js';
import type { Problem } from './deepspeedReport.js';
import { FpdtError } from './errors.js';
import { type HjsonText, parseHjson } from './hjsonText.js';
import { exists, readFileAs } from './jsonFile.js';
import { isObject, type JsonObject, readJsonObject } from './parseJson.js';

export interface DeepSpeedSource {
  readonly config: JsonObject;
  /** Of the keys of a text, by path. */
  readonly lines: ReadonlyMap<string, number>;
  /** What is known to be wrong with it; to be told with the rest. */
  readonly problems?: readonly Problem[];
}

/** Where no ds_config is given: a model of any size wants its states sharded. */
const DEFAULT_DEEPSPEED = { zero_optimization: { stage: 3 }, train_micro_batch_size_per_gpu: 1, bf16: { enabled: 'auto' } };

export function readDeepSpeed(input: string | JsonObject | undefined): DeepSpeedSource {
  if (typeof input !== 'string') return { config: readJsonObject(input ?? DEFAULT_DEEPSPEED, 'deepspeed'), lines: new Map() };
  const { value, lines } = readText(input);
  if (isObject(value)) return { config: value, lines };
  throw new FpdtError(`deepspeed: expected a JSON object, found ${describe(value)}`, {
    code: 'invalid-value',
    hint: 'give the path of a JSON file for the deepspeed, or an object',
  });
}

/** A file of that name goes first, as with DeepSpeed. */
function readText(input: string): HjsonText {
  const text = exists(input) ? undefined : fromBase64(input);
  return text === undefined ? readFileAs(parseHjson, input, 'deepspeed') : parseHjson(text, 'deepspeed, base64');
}

const BASE64 = /^[\w-]{4,}={0,2}$/;

/** Undefined for what does not hold a text that may be a config. */
function fromBase64(input: string): string | undefined {
  if (!BASE64.test(input) || input.replace(/=+$/, '').length % 4 === 1) return undefined;
  const text = Buffer.from(input, 'base64url').toString('utf8');
  return /^\uFEFF?\s*[{"'#/\w]/.test(text) && text.includes(':') && !text.includes('\uFFFD') ? text : undefined;
}
