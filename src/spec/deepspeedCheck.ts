/** Keys and types of a ds_config, against the table of what DeepSpeed knows. */
import { DEEPSPEED_KEYS, type KeyTable, type KeyType, REMOVED_KEYS, REMOVED_ZERO_KEYS, STAGE3_ALIASES } from './deepspeedKeys.js';
import { FpdtError } from './errors.js';
import { describe } from './describe.js';
import { isObject, type JsonObject, unknownKey } from './parseJson.js';
import { TYPE_WORDS } from './typeWords.js';

/** Returns the config with DeepSpeed's own synonyms replaced: `bfloat16` by `bf16`, ZeRO-3 keys by their long names. */
export function checkKeys(config: JsonObject): JsonObject {
  refuseRemoved(config);
  checkTable(config, DEEPSPEED_KEYS, 'deepspeed');
  const { bfloat16, ...rest } = config;
  const zero = rest.zero_optimization;
  return {
    ...(bfloat16 === undefined ? {} : { bf16: bfloat16 }),
    ...rest,
    ...(zero === undefined ? {} : { zero_optimization: longNames(zero as JsonObject) }),
  };
}

function refuseRemoved(config: JsonObject): void {
  const zero = config.zero_optimization;
  const inZero = isObject(zero) ? REMOVED_ZERO_KEYS.filter((key) => key in zero) : [];
  const removed = [...REMOVED_KEYS.filter((key) => key in config), ...inZero.map((key) => `zero_optimization.${key}`)][0];
  if (removed === undefined) return;
  throw new FpdtError(`deepspeed.${removed}: DeepSpeed 0.19.8 has removed this`, { code: 'unsupported', hint: 'delete the key' });
}

function checkTable(config: JsonObject, table: KeyTable, at: string): void {
  for (const [key, value] of Object.entries(config)) {
    const type = Object.hasOwn(table, key) ? table[key] : undefined;
    if (type === undefined) throw unknownKey(key, Object.keys(table), at);
    if (typeof type === 'string') checkType(value, type, `${at}.${key}`);
    else checkSection(value, type, `${at}.${key}`);
  }
}

function checkSection(value: unknown, table: KeyTable, at: string): void {
  if (value === null && at.includes('.offload_')) return;
  checkType(value, 'object', at);
  checkTable(value as JsonObject, table, at);
}

const CHECKS: Readonly<Record<KeyType, (value: unknown) => boolean>> = {
  integer: (value) => Number.isInteger(value),
  'integer >0': (value) => Number.isInteger(value) && Number(value) > 0,
  'integer >=0': (value) => Number.isInteger(value) && Number(value) >= 0,
  number: (value) => typeof value === 'number' && Number.isFinite(value),
  'number >=0 <=1': (value) => typeof value === 'number' && value >= 0 && value <= 1,
  boolean: (value) => typeof value === 'boolean',
  string: (value) => typeof value === 'string',
  list: (value) => Array.isArray(value),
  object: isObject,
  any: () => true,
};

const WORDS: Readonly<Record<KeyType, string>> = {
  ...TYPE_WORDS,
  'integer >0': `${TYPE_WORDS.integer} > 0`,
  'integer >=0': `${TYPE_WORDS.integer} >= 0`,
  'number >=0 <=1': `${TYPE_WORDS.number} from 0 to 1`,
};

function checkType(value: unknown, type: KeyType, at: string): void {
  if (value === 'auto' && type !== 'object' && type !== 'list') return;
  if (CHECKS[type](value)) return;
  throw new FpdtError(`${at}: expected ${WORDS[type]}, found ${describe(value)}`, {
    code: 'invalid-value',
    hint: `give ${WORDS[type]}`,
    details: { path: at, expected: type },
  });
}

function longNames(zero: JsonObject): JsonObject {
  const aliases: readonly string[] = STAGE3_ALIASES;
  return Object.fromEntries(Object.entries(zero).map(([key, value]) => [aliases.includes(key) ? `stage3_${key}` : key, value]));
}
