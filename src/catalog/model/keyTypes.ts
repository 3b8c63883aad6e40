/**
 * Types of config keys, as transformers writes them: `int | null`, `list[str]`; with bounds where it has them, or where a value past
 * them would make numbers that are none: `float >0`.
 */
import { isObject } from '../../spec/parseJson.js';
import { TYPE_WORDS } from '../../spec/typeWords.js';

const MEMBER = /^(int|float|bool|str|list|dict|null|dict\[int\]|list\[(?:int|str)\])((?: (?:>=|<=|>|<)-?[\d.]+)*)$/;

const IS: Readonly<Record<string, (value: unknown) => boolean>> = {
  int: Number.isSafeInteger,
  float: Number.isFinite,
  bool: (value) => typeof value === 'boolean',
  str: (value) => typeof value === 'string',
  list: Array.isArray,
  dict: isObject,
  'dict[int]': (value) => isObject(value) && Object.keys(value).every((key) => /^-?\d+$/.test(key)),
  null: (value) => value === null,
  'list[int]': (value) => Array.isArray(value) && value.every(Number.isSafeInteger),
  'list[str]': (value) => Array.isArray(value) && value.every((one) => typeof one === 'string'),
};

const WORDS: Readonly<Record<string, string>> = {
  int: TYPE_WORDS.integer,
  float: TYPE_WORDS.number,
  bool: TYPE_WORDS.boolean,
  str: TYPE_WORDS.string,
  list: TYPE_WORDS.list,
  dict: TYPE_WORDS.object,
  'dict[int]': `${TYPE_WORDS.object} whose keys are whole numbers`,
  null: TYPE_WORDS.null,
  'list[int]': `${TYPE_WORDS.list} of whole numbers`,
  'list[str]': `${TYPE_WORDS.list} of texts`,
};

const HOLDS: Readonly<Record<string, (value: number, bound: number) => boolean>> = {
  '>=': (value, bound) => value >= bound,
  '<=': (value, bound) => value <= bound,
  '>': (value, bound) => value > bound,
  '<': (value, bound) => value < bound,
};

interface Member {
  readonly kind: string;
  readonly bounds: readonly { readonly sign: string; readonly than: number }[];
}

export function isOfType(value: unknown, type: string): boolean {
  return membersOf(type).some(
    ({ kind, bounds }) => IS[kind]?.(value) === true && bounds.every(({ sign, than }) => HOLDS[sign]?.(Number(value), than) === true),
  );
}

/** `int >=1 | null`: a whole number >= 1, or null. */
export function wordsOfType(type: string): string {
  const words = membersOf(type).map(({ kind, bounds }) => [WORDS[kind], ...bounds.map(({ sign, than }) => `${sign} ${than}`)].join(' '));
  return words.join(' or ');
}

/** Throws for a type that a family's file cannot mean. */
function membersOf(type: string): readonly Member[] {
  return type.split(' | ').map((text) => {
    const [, kind = '', bounds = ''] = MEMBER.exec(text) ?? [];
    if (kind === '') throw new RangeError(`a family's keys have no type '${text}'`);
    return { kind, bounds: [...bounds.matchAll(/(>=|<=|>|<)(\S+)/g)].map(([, sign = '', than]) => ({ sign, than: Number(than) })) };
  });
}
