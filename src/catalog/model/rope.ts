/**
 * Settings of rotary positions, checked as transformers checks them (modeling_rope_utils.py), and where it only warns but could not
 * compute. `rope_scaling.type` up to transformers 4.42, `rope_scaling.rope_type` up to 4, `rope_parameters` from 5 on, which in
 * models with a base for each kind of layer has settings for each kind inside.
 */
import { describe } from '../../spec/describe.js';
import { FpdtError } from '../../spec/errors.js';
import { nearestKey } from '../../spec/nearestKey.js';
import type { JsonObject } from '../../spec/parseJson.js';
import { conflict } from './keys.js';
import { isOfType, wordsOfType } from './keyTypes.js';
import type { WrittenFamily } from './written.js';

interface RopeType {
  readonly needs: Readonly<Record<string, string>>;
  readonly takes: Readonly<Record<string, string>>;
}

const ANY_TYPE = { rope_type: 'str', type: 'str', rope_theta: 'float >0', partial_rotary_factor: 'float >0 <=1' };
const ORIGINAL = { original_max_position_embeddings: 'int >=1' };
/** Types whose frequencies do not depend on the length of the sequence, so that a chunk needs only its positions. */
const TYPES: Readonly<Record<string, RopeType>> = {
  default: { needs: {}, takes: {} },
  llama3: { needs: { factor: 'float >=1', low_freq_factor: 'float >0', high_freq_factor: 'float >0' }, takes: ORIGINAL },
  linear: { needs: { factor: 'float >=1' }, takes: {} },
  yarn: {
    needs: { factor: 'float >=1' },
    takes: {
      ...ORIGINAL,
      attention_factor: 'float >=0 | null',
      beta_fast: 'float >0 | null',
      beta_slow: 'float >0 | null',
      mscale: 'float | null',
      mscale_all_dim: 'float | null',
      truncate: 'bool',
    },
  },
};
/** Kinds of layers that settings may be given for, each its own. */
const KINDS = ['full_attention', 'sliding_attention'];

/** Throws for settings that transformers refuses, that are not supported, or that would change nothing in silence. */
export function checkRope(family: WrittenFamily, config: JsonObject): void {
  const angles = family.pre.filter(({ op, module }) => op === 'angles' && module !== undefined);
  const [parameters, scaling] = [given(config, 'rope_parameters'), given(config, 'rope_scaling')];
  if (angles.length === 0) {
    const key = scaling === undefined ? 'rope_parameters' : 'rope_scaling';
    if ((scaling ?? parameters) !== undefined)
      throw notRead(key, family.name, 'its positions are not rotary, or of one kind: delete the key');
    return;
  }
  if (parameters !== undefined && scaling !== undefined && JSON.stringify(parameters) !== JSON.stringify(scaling)) {
    throw conflict('rope_scaling', scaling, 'rope_parameters', parameters);
  }
  const byKind = angles.some(({ prefix }) => prefix !== undefined);
  const all = [
    ...(scaling === undefined ? [] : [['rope_scaling', scaling] as const]),
    ...(parameters === undefined ? [] : byKind ? nested(parameters, family.name) : [['rope_parameters', parameters] as const]),
  ];
  for (const [at, settings] of all) checkSettings(at, settings, family, config);
  checkOuter(family, config, all);
}

function given(config: JsonObject, key: string): JsonObject | undefined {
  const value = config[key] as JsonObject | null | undefined;
  return value === null || value === undefined || Object.keys(value).length === 0 ? undefined : value;
}

function nested(parameters: JsonObject, name: string): readonly (readonly [string, JsonObject])[] {
  for (const [key, value] of Object.entries(parameters)) {
    if (KINDS.includes(key) && isOfType(value, 'dict | null')) continue;
    throw notRead(`rope_parameters.${key}`, name, `put the settings under ${KINDS.join(' and ')}, or under rope_scaling`);
  }
  return Object.entries(parameters).flatMap(([key, value]) => (value === null ? [] : [[`rope_parameters.${key}`, value as JsonObject]]));
}

function checkSettings(at: string, settings: JsonObject, family: WrittenFamily, config: JsonObject): void {
  const { rope_type: now, type: before } = settings;
  if (now !== undefined && before !== undefined && now !== before) throw conflict(`${at}.rope_type`, now, `${at}.type`, before);
  const name = now ?? before ?? 'default';
  if (typeof name !== 'string') throw wrong(`${at}.rope_type`, 'str', name);
  const type = Object.hasOwn(TYPES, name) ? TYPES[name] : undefined;
  if (type === undefined) throw unsupportedType(name);
  const known = { ...ANY_TYPE, ...type.needs, ...type.takes };
  for (const [key, value] of Object.entries(settings)) checkOne(at, key, value, known, settings, family.name);
  for (const [key, what] of Object.entries(type.needs)) {
    if (settings[key] === undefined) throw wrong(`${at}.${key}`, what, undefined);
  }
  checkTogether(at, name, settings, config);
}

function checkOne(
  at: string,
  key: string,
  value: unknown,
  known: Readonly<Record<string, string>>,
  settings: JsonObject,
  family: string,
): void {
  const type = Object.hasOwn(known, key) ? known[key] : undefined;
  if (value === undefined) return;
  if (type !== undefined) {
    if (!isOfType(value, type)) throw wrong(`${at}.${key}`, type, value);
    return;
  }
  if (isOfType(value, 'dict')) throw notRead(`${at}.${key}`, family, 'its layers have one kind of rotary positions: move the settings up');
  const absent = Object.keys(known).filter((one) => settings[one] === undefined);
  const meant = nearestKey(key, absent);
  if (meant === undefined || isOfOtherType(key)) return;
  throw new FpdtError(`model config.${at}.${key}: there is no such rotary setting`, {
    code: 'unknown-key',
    hint: `did you mean '${meant}'? Without it the default would be taken; remove '${key}' if that is right`,
    details: { key, nearest: meant },
  });
}

/** What another type reads is no misspelt key; transformers only warns of it. */
function isOfOtherType(key: string): boolean {
  return Object.values(TYPES).some(({ needs, takes }) => Object.hasOwn(needs, key) || Object.hasOwn(takes, key));
}

/** What the formulas of a type divide by, or take the logarithm of. */
function checkTogether(at: string, type: string, settings: JsonObject, config: JsonObject): void {
  const say = (problem: string, hint: string): FpdtError =>
    new FpdtError(`model config.${at}: ${problem}`, { code: 'invalid-value', hint, details: { path: `model config.${at}` } });
  const [high, low] = [Number(settings.high_freq_factor), Number(settings.low_freq_factor)];
  if (type === 'llama3' && high <= low) {
    throw say(`high_freq_factor ${high} is not above low_freq_factor ${low}`, 'Llama 3.1 has 4 and 1');
  }
  if (type !== 'yarn') return;
  const [fast, slow] = [Number(settings.beta_fast ?? 32), Number(settings.beta_slow ?? 1)];
  if (fast < slow) throw say(`beta_fast ${fast} is below beta_slow ${slow}`, 'leave both out for 32 and 1');
  if ((settings.rope_theta ?? config.rope_theta) === 1) throw say('YaRN takes the logarithm of rope_theta, which is 1', 'raise rope_theta');
}

/** Base and turning part may stand beside the settings, where both say the same. */
function checkOuter(family: WrittenFamily, config: JsonObject, all: readonly (readonly [string, JsonObject])[]): void {
  for (const key of ['rope_theta', 'partial_rotary_factor']) {
    const outer = config[key];
    const inner = all.filter(([, settings]) => settings[key] !== undefined);
    const [first] = inner;
    if (outer === null && key === 'rope_theta' && first === undefined) throw wrong(key, 'float >0', null);
    if (outer === undefined || outer === null || first === undefined) continue;
    if (!inner.some(([, settings]) => settings[key] === outer)) throw conflict(key, outer, `${first[0]}.${key}`, first[1][key]);
  }
  const parts = [config, ...all.map(([, settings]) => settings)].map((one) => one.partial_rotary_factor ?? 1);
  const part = parts.find((one) => one !== 1);
  if (part === undefined || Object.hasOwn(family.settings, 'rotaryFactor')) return;
  throw notRead('partial_rotary_factor', family.name, `all of a head turns: delete the key, which says ${describe(part)}`);
}

function unsupportedType(type: string): FpdtError {
  return new FpdtError(`model config: RoPE type '${type}' is not supported`, {
    code: 'unsupported',
    hint: `supported: ${Object.keys(TYPES).join(', ')}, whose frequencies do not depend on the sequence length`,
  });
}

function notRead(key: string, family: string, hint: string): FpdtError {
  return new FpdtError(`model config.${key}: ${family} does not read it`, {
    code: 'unsupported',
    hint,
    details: { path: `model config.${key}` },
  });
}

function wrong(key: string, type: string, found: unknown): FpdtError {
  return new FpdtError(`model config.${key}: expected ${wordsOfType(type)}, found ${describe(found)}`, {
    code: found === undefined ? 'missing-key' : 'invalid-value',
    hint: `give ${wordsOfType(type)}`,
    details: { path: `model config.${key}` },
  });
}
