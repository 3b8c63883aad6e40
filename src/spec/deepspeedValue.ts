/** A value of a ds_config's key as DeepSpeed takes it: pydantic turns "3" into 3 and "yes" into true where a model has a field of that type. */
import { TYPE_WORDS } from './typeWords.js';
import type { KeyRow } from './deepspeedTable.js';
import { isObject } from './parseJson.js';

/** The value, or undefined where it is not one of the row's. `isModel`: the key is a field of a pydantic model. */
export function takenValue(row: KeyRow, value: unknown, isModel: boolean): unknown {
  const taken = isModel ? coerced(row, value) : value;
  return isOfType(row, taken) && inRange(row, taken) ? taken : undefined;
}

/** Numbers that are whole are integers, also such as 5e8. */
function isOfType({ type }: KeyRow, value: unknown): boolean {
  if (type === 'integer') return Number.isInteger(value);
  if (type === 'number') return typeof value === 'number' && Number.isFinite(value);
  if (type === 'list') return Array.isArray(value);
  if (type === 'object') return isObject(value);
  return type === 'any' ? value !== undefined : typeof value === type;
}

function inRange({ values, min, max, above, below }: KeyRow, value: unknown): boolean {
  if (values !== undefined) return values.includes(value);
  if (typeof value !== 'number') return true;
  return value >= (min ?? value) && value <= (max ?? value) && value > (above ?? -Infinity) && value < (below ?? Infinity);
}

const TRUE = ['1', 'on', 't', 'true', 'y', 'yes'];
const FALSE = ['0', 'off', 'f', 'false', 'n', 'no'];
const WHOLE = /^\s*[+-]?\d+(?:_\d+)*(?:\.0*)?\s*$/;
const DECIMAL = /^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$/;

/** What pydantic makes of it outside its strict mode. */
function coerced({ type, noBoolean = false }: KeyRow, value: unknown): unknown {
  if (type === 'boolean') return truth(value);
  if (type !== 'integer' && type !== 'number') return value;
  if (typeof value === 'boolean') return noBoolean ? value : Number(value);
  if (typeof value !== 'string') return value;
  const text = value.replaceAll('_', '');
  return (type === 'integer' ? WHOLE : DECIMAL).test(type === 'integer' ? value : text) ? Number(text) : value;
}

function truth(value: unknown): unknown {
  if (value === 1 || value === 0) return value === 1;
  if (typeof value !== 'string') return value;
  const word = value.toLowerCase();
  if (TRUE.includes(word)) return true;
  return FALSE.includes(word) ? false : value;
}

/** `a whole number >= 0`, `'none', 'cpu' or 'nvme'`. */
export function wordsOf({ type, values, min, max, above, below, nullable }: KeyRow): string {
  const limits = [
    ...(above === undefined ? [] : [`> ${above}`]),
    ...(min === undefined || max !== undefined ? [] : [`>= ${min}`]),
    ...(min === undefined || max === undefined ? [] : [`from ${min} to ${max}`]),
    ...(below === undefined ? [] : [`< ${below}`]),
  ];
  const kind = values === undefined ? [TYPE_WORDS[type], ...limits].join(' ') : values.map((one) => JSON.stringify(one)).join(', ');
  return nullable === true ? `${kind} or null` : kind;
}
