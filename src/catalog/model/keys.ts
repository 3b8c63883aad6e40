/**
 * Keys of a config: those that are known have the type that transformers wants, and none looks like another spelling of one that would
 * otherwise get its default in silence.
 */
import { describe } from '../../spec/describe.js';
import { FpdtError } from '../../spec/errors.js';
import { editDistance } from '../../spec/nearestKey.js';
import type { JsonObject } from '../../spec/parseJson.js';
import { keysOfSettings } from '../families/index.js';
import common from './commonKeys.json' with { type: 'json' };
import { isOfType, wordsOfType } from './keyTypes.js';
import { keysOf, valueAt } from './settings.js';
import type { WrittenFamily } from './written.js';

/** Keys that any config may have, and that change no model. */
export const COMMON_KEYS: readonly string[] = [...common.keys, ...[common.types, common.oneOf].flatMap((one) => Object.keys(one))];
/** Each is compared with all that are known. */
const MOST_UNREAD = 300;
const LONG = 60;

/** Throws `invalid-value`, `unsupported`, `conflict` or `unknown-key` for the first key that is wrong. */
export function checkKeys(family: WrittenFamily, config: JsonObject): void {
  checkCommon(config);
  checkTypes(family, config);
  checkSpellings(family, config);
  const unread = unreadKeys(family, config);
  if (unread.length > MOST_UNREAD) {
    throw new FpdtError(`model config: ${unread.length} keys that no ${family.name} reads`, {
      code: 'too-large',
      hint: `a config has a few dozen keys; give the model's config.json, or delete '${unread[0]?.slice(0, LONG)}' and the like`,
    });
  }
  const absent = knownGroups(family).filter((keys) => keys.every((one) => (config[one] ?? null) === null));
  for (const key of unread) {
    const meant = meantBy(key, absent);
    if (meant === undefined) continue;
    throw new FpdtError(`model config.${key}: ${family.name} has no such key`, {
      code: 'unknown-key',
      hint: `did you mean '${meant}'? Without it the default would be taken; remove '${key}' if that is right`,
      details: { key, nearest: meant },
    });
  }
}

/** Keys that nothing reads: neither this family's file nor the model's config class in transformers. */
export function unreadKeys(family: WrittenFamily, config: JsonObject): readonly string[] {
  const known = new Set([...COMMON_KEYS, ...Object.keys(common.refused), ...knownGroups(family).flat()]);
  return Object.keys(config).filter((key) => config[key] !== undefined && !key.startsWith('_') && !known.has(key));
}

/** The key that is left out for which an unknown one was given. */
function meantBy(key: string, absent: readonly (readonly string[])[]): string | undefined {
  const elsewhere = keysOfSettings(key);
  const named = absent.find((keys) => keys.some((one) => elsewhere.has(one)));
  return absent.flat().find((one) => looksLike(key, one)) ?? named?.[0];
}

function checkCommon(config: JsonObject): void {
  for (const [key, why] of Object.entries(common.refused)) {
    if ((config[key] ?? null) !== null) {
      throw new FpdtError(`model config.${key}: ${describe(config[key])} is not supported`, { code: 'unsupported', hint: why });
    }
  }
  for (const [key, values] of Object.entries(common.refusedValues)) {
    const given = valueAt(config, key);
    if (typeof given !== 'string' || !Object.hasOwn(values, given)) continue;
    throw new FpdtError(`model config.${key}: ${describe(given)} is not supported`, {
      code: 'unsupported',
      hint: (values as Readonly<Record<string, string>>)[given],
    });
  }
  for (const [key, values] of Object.entries(common.oneOf)) {
    const given = config[key] ?? null;
    if (given !== null && !values.includes(given as string)) throw wrong(key, values.join(' | '), given);
  }
  checkEach(common.types, config);
}

function checkTypes(family: WrittenFamily, config: JsonObject): void {
  checkEach(Object.fromEntries(Object.entries(family.keys).flatMap(([type, keys]) => keys.map((key) => [key, type]))), config);
}

function checkEach(types: Readonly<Record<string, string>>, config: JsonObject): void {
  for (const [key, type] of Object.entries(types)) {
    const given = config[key];
    if (given !== undefined && !isOfType(given, type)) throw wrong(key, wordsOfType(type), given);
  }
}

function wrong(key: string, expected: string, given: unknown): FpdtError {
  return new FpdtError(`model config.${key}: expected ${expected}, found ${describe(given)}`, {
    code: 'invalid-value',
    hint: given === null ? `leave '${key}' out: transformers takes its default then, and no null` : `give ${expected}`,
    details: { path: `model config.${key}` },
  });
}

/** Two keys of one setting that say different things: neither silently wins. */
function checkSpellings({ settings }: WrittenFamily, config: JsonObject): void {
  for (const setting of Object.values(settings)) {
    const given = keysOf(setting).filter((key) => !key.includes('.') && (config[key] ?? null) !== null);
    const [first = '', second] = given;
    if (second === undefined || config[first] === config[second]) continue;
    throw conflict(first, config[first], second, config[second]);
  }
}

export function conflict(first: string, a: unknown, second: string, b: unknown): FpdtError {
  return new FpdtError(`model config.${first} is ${describe(a)} but model config.${second} is ${describe(b)}`, {
    code: 'conflict',
    hint: 'they are one setting: keep one of them',
    details: { path: `model config.${first}` },
  });
}

/** Keys that mean the same together; `a.b` is known by a. */
function knownGroups({ settings, layerSettings, requires, keys }: WrittenFamily): readonly (readonly string[])[] {
  const outer = (key: string): string => key.split('.')[0] ?? key;
  const read = [settings, layerSettings].flatMap((group) => Object.values(group).map((setting) => keysOf(setting).map(outer)));
  const groups = read.filter((group) => group.length > 0);
  const alone = [...requires.map(({ key }) => outer(key)), ...Object.values(keys).flat()];
  return [...groups, ...alone.filter((key) => !groups.some((group) => group.includes(key))).map((key) => [key])];
}

/** Words that people use for one another in such keys. */
const SAME: Readonly<Record<string, string>> = {
  n: 'num',
  nb: 'num',
  kv: 'key value',
  heads: 'head',
  layers: 'layer',
  dim: 'size',
  width: 'size',
  act: 'activation',
  attn: 'attention',
  epsilon: 'eps',
  emb: 'embedding',
  embeddings: 'embedding',
  embd: 'embedding',
};
const SHORT = 8;

/** A typing mistake or two; or the same words but for their forms, in any order, with one too many or too few. */
function looksLike(key: string, known: string): boolean {
  if (key.length > LONG) return false;
  const written = snakeCase(key);
  const typos = known.length < SHORT || known.endsWith('_token_id') ? 1 : 2;
  if (Math.abs(written.length - known.length) <= typos && editDistance(written, known) <= typos) return true;
  const [given, meant] = [wordsOf(written), wordsOf(known)];
  const [missing, extra] = [countOutside(meant, given), countOutside(given, meant)];
  return given.size > 1 && meant.size > 1 && missing + extra <= 1;
}

/** `headDim`, `head-dim` and `HEAD_DIM` are head_dim. */
function snakeCase(key: string): string {
  return key
    .replaceAll('-', '_')
    .replaceAll(/(?<=[a-z0-9])(?=[A-Z])/g, '_')
    .toLowerCase();
}

function countOutside(words: ReadonlySet<string>, others: ReadonlySet<string>): number {
  return [...words].filter((word) => !others.has(word)).length;
}

function wordsOf(key: string): ReadonlySet<string> {
  return new Set(key.split('_').flatMap((word) => (SAME[word] ?? word).split(' ')));
}
