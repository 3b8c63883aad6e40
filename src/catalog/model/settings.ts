/** Settings of a family: values that its programs use, from keys of a Hugging Face config or computed from each other. */
import { FpdtError } from '../../spec/errors.js';
import { nearestKey } from '../../spec/nearestKey.js';
import { describe } from '../../spec/describe.js';
import { type JsonObject, valueIn } from '../../spec/parseJson.js';

export type SettingValue = number | string | boolean | null;

/** A literal, the name of a setting, or [operator, ...operands]: + - * / % ^ floor = >= or and not if. */
export type Expression = SettingValue | readonly Expression[];

/** A key of a config, or keys of which the first that is there counts; `a.b` is b inside a. */
export type ConfigKey = string | readonly string[];

/** One of `size`, `number`, `flag` or `text` names the config key and says what it holds; `compute` uses no key, `given` no value. */
export interface Setting {
  readonly size?: ConfigKey;
  readonly number?: ConfigKey;
  readonly flag?: ConfigKey;
  readonly text?: ConfigKey;
  /** The key holds a list with one for each layer. */
  readonly each?: boolean;
  /** What is run here, where that is not everything. */
  readonly only?: readonly SettingValue[];
  /** Where the key is absent; required without it. */
  readonly else?: Expression;
  /** Where the key is null; without it, as where it is absent. */
  readonly null?: Expression;
  readonly compute?: Expression;
  /** Whether the config has this key, and not null. */
  readonly given?: string;
}

export type Settings = ReadonlyMap<string, SettingValue>;

const KINDS = ['size', 'number', 'flag', 'text'] as const;
type Kind = (typeof KINDS)[number];

const EXPECTED: Readonly<Record<Kind, string>> = {
  size: 'a whole number of at least 1',
  number: 'a finite number',
  flag: 'true or false',
  text: 'a text',
};

/** Throws `missing-key` or `invalid-value` that names the config key. `known` holds settings that come from elsewhere. */
export function resolveSettings(
  written: Readonly<Record<string, Setting>>,
  config: JsonObject,
  known: Settings = new Map(),
): Map<string, SettingValue> {
  const settings = new Map(known);
  for (const [name, setting] of Object.entries(written)) settings.set(name, resolve(setting, config, settings, written));
  return settings;
}

function resolve(setting: Setting, config: JsonObject, settings: Settings, written: Readonly<Record<string, Setting>>): SettingValue {
  if (setting.given !== undefined) return (valueAt(config, setting.given) ?? null) !== null;
  const kind = KINDS.find((one) => setting[one] !== undefined);
  if (kind === undefined) return computed(setting.compute ?? null, settings, written);
  const keys = keysOf(setting);
  const key = keys.find((one) => valueAt(config, one) !== undefined) ?? keys[0] ?? '';
  const given = setting.each === true ? ofLayer(key, config, settings) : valueAt(config, key);
  if (given === undefined || given === null) {
    const fallback = given === null && setting.null !== undefined ? setting.null : setting.else;
    if (fallback === undefined) throw missing(key, kind, config);
    const value = evaluate(fallback, settings);
    if (kind === 'size' && value !== null && !isOf('size', value)) {
      const others = namesIn(fallback).flatMap((name) => keysOf(written[name] ?? {}).slice(0, 1));
      const hint = [`give ${key}`, ...others.map((one) => `change ${one}`)].join(' or ');
      throw wrong(key, `it is left out, which makes it ${value}`, kind, hint);
    }
    return value;
  }
  if (!isOf(kind, given)) throw wrong(key, `found ${describe(given)}`, kind);
  if (setting.only !== undefined && !setting.only.includes(given as SettingValue)) {
    throw new FpdtError(`model config.${key}: ${describe(given)} is not supported`, {
      code: 'unsupported',
      hint: `supported: ${setting.only.join(', ')}`,
    });
  }
  return given as SettingValue;
}

/** A number that is none comes from a division by zero, a root of what is negative, or sizes past all bounds. */
function computed(expression: Expression, settings: Settings, written: Readonly<Record<string, Setting>>): SettingValue {
  const value = evaluate(expression, settings);
  if (typeof value !== 'number' || Number.isFinite(value)) return value;
  const names = namesIn(expression).filter((name) => settings.has(name));
  const from = names.map((name) => `${keysOf(written[name] ?? {})[0] ?? name} (${describe(settings.get(name))})`);
  throw new FpdtError(`model config: a number that is computed of ${from.join(', ')} is ${value}`, {
    code: 'invalid-value',
    hint: 'give numbers above 0, and of the sizes that models have',
  });
}

/** Keys that a setting is read from. */
export function keysOf(setting: Setting): readonly string[] {
  return KINDS.flatMap((kind) => setting[kind] ?? []);
}

function namesIn(expression: Expression): readonly string[] {
  if (isOperation(expression)) return expression.flatMap(namesIn);
  return typeof expression === 'string' ? [expression] : [];
}

/** What a config holds under a key, `a.b` for b inside a, `a.0` for the first of a list; undefined where it is not there. */
export function valueAt(config: JsonObject, key: string): unknown {
  return valueIn(config, key.split('.'));
}

function ofLayer(key: string, config: JsonObject, settings: Settings): unknown {
  const list = valueAt(config, key);
  if (list === undefined || list === null) return list;
  const numLayers = Number(settings.get('numLayers'));
  if (Array.isArray(list) && list.length === numLayers) return list[Number(settings.get('layer'))];
  throw new FpdtError(`model config.${key}: expected a list of ${numLayers}, one for each layer, found ${describe(list)}`, {
    code: 'invalid-value',
    hint: `give one for each of the ${numLayers} layers, or leave ${key} out`,
  });
}

function isOf(kind: Kind, value: unknown): boolean {
  switch (kind) {
    case 'size':
      return Number.isSafeInteger(value) && (value as number) >= 1;
    case 'number':
      return Number.isFinite(value);
    case 'flag':
      return typeof value === 'boolean';
    case 'text':
      return typeof value === 'string';
  }
}

function missing(key: string, kind: Kind, config: JsonObject): FpdtError {
  const others = Object.keys(config).filter((one) => one !== key);
  const nearest = nearestKey(key, others);
  return new FpdtError(`model config.${key}: expected ${EXPECTED[kind]}, found ${config[key] === null ? 'null' : 'nothing'}`, {
    code: 'missing-key',
    details: { path: `model config.${key}` },
    hint: nearest === undefined ? `give ${key}` : `'${nearest}' was given; did you mean '${key}'?`,
  });
}

function wrong(key: string, found: string, kind: Kind, hint?: string): FpdtError {
  return new FpdtError(`model config.${key}: expected ${EXPECTED[kind]}, ${found}`, {
    code: 'invalid-value',
    details: { path: `model config.${key}` },
    hint: hint ?? `give ${EXPECTED[kind]}`,
  });
}

/** The value of an expression. A text that names no setting stands for itself. */
export function evaluate(expression: Expression, settings: Settings): SettingValue {
  if (typeof expression === 'string') return settings.has(expression) ? (settings.get(expression) ?? null) : expression;
  if (!isOperation(expression)) return expression;
  const [operator, ...operands] = expression;
  if (operator === 'if') {
    const [condition = null, then = null, otherwise = null] = operands;
    return evaluate(isTrue(evaluate(condition, settings)) ? then : otherwise, settings);
  }
  const values = operands.map((operand) => evaluate(operand, settings));
  if (operator === '=') return values[0] === values[1];
  if (operator === 'not') return !isTrue(values[0] ?? null);
  if (operator === 'or') return values.some(isTrue);
  if (operator === 'and') return values.every(isTrue);
  if (operator === '>=') return Number(values[0]) >= Number(values[1]);
  return calculate(String(operator), values.map(Number));
}

function isOperation(expression: Expression): expression is readonly Expression[] {
  return Array.isArray(expression);
}

/** Null, false and zero are not. */
export function isTrue(value: SettingValue): boolean {
  return value !== null && value !== false && value !== 0;
}

function calculate(operator: string, [a = Number.NaN, ...rest]: readonly number[]): number {
  switch (operator) {
    case '+':
      return rest.reduce((sum, b) => sum + b, a);
    case '-':
      return rest.reduce((sum, b) => sum - b, a);
    case '*':
      return rest.reduce((product, b) => product * b, a);
    case '/':
      return rest.reduce((quotient, b) => quotient / b, a);
    case '%':
      return a % (rest[0] ?? 1);
    case '^':
      return a ** (rest[0] ?? 1);
    case 'floor':
      return Math.floor(a);
    default:
      throw new RangeError(`an expression of a family has no operator '${operator}'`);
  }
}
