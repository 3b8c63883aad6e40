/** Configs with one thing wrong: a value replaced, a key left out, a key misspelt. */
import type { JsonObject } from '../../src/spec/parseJson.js';

export interface Mutation {
  /** Keys from the root, joined by dots. */
  readonly at: string;
  readonly what: string;
  readonly config: JsonObject;
  /** Of a misspelt key: the config without it. */
  readonly without?: JsonObject;
}

const DEEP = 40;
const VALUES: readonly (readonly [string, unknown])[] = [
  ...[
    null,
    '',
    'NaN',
    'x',
    [],
    {},
    [1],
    { a: 1 },
    true,
    false,
    -1,
    0,
    0.5,
    1,
    2,
    3,
    7,
    48,
    1e308,
    1e-308,
    2 ** 31,
    2 ** 53,
    -(2 ** 53),
  ].map((value) => [JSON.stringify(value), value] as const),
  ['a long text', 'x'.repeat(100_000)],
  ['nested lists', JSON.parse('['.repeat(DEEP) + ']'.repeat(DEEP)) as unknown],
  ['a long list', Array.from({ length: 10_000 }, () => 'full_attention')],
];

export function mutationsOf(config: JsonObject): readonly Mutation[] {
  return pathsIn(config).flatMap((path) => {
    const at = path.join('.');
    const replaced = VALUES.map(([what, value]) => ({ at, what, config: changed(config, path, () => value) }));
    if (path.length > 1) return replaced;
    const without = changed(config, path, () => undefined);
    return [...replaced, { at, what: 'left out', config: without }, ...misspelt(config, at, without)];
  });
}

/** To every value, and to every object and list; of a list the first two. */
function pathsIn(value: unknown, path: readonly string[] = []): readonly (readonly string[])[] {
  const here = path.length === 0 ? [] : [path];
  if (typeof value !== 'object' || value === null) return here;
  const keys = Array.isArray(value) ? Object.keys(value).slice(0, 2) : Object.keys(value);
  return [...here, ...keys.flatMap((key) => pathsIn((value as JsonObject)[key], [...path, key]))];
}

function changed(value: JsonObject, [key = '', ...rest]: readonly string[], make: () => unknown): JsonObject {
  const inner = rest.length === 0 ? make() : changed(value[key] as JsonObject, rest, make);
  if (Array.isArray(value)) return value.with(Number(key), inner) as unknown as JsonObject;
  if (inner !== undefined) return { ...value, [key]: inner };
  return Object.fromEntries(Object.entries(value).filter(([one]) => one !== key));
}

function misspelt(config: JsonObject, key: string, without: JsonObject): readonly Mutation[] {
  const middle = Math.floor(key.length / 2);
  const typos = [
    key.slice(0, middle) + key.slice(middle + 1),
    key.slice(0, middle) + key.charAt(middle) + key.slice(middle),
    key.slice(0, middle - 1) + key.charAt(middle) + key.charAt(middle - 1) + key.slice(middle + 1),
    key.toUpperCase(),
    key.replaceAll('_', '-'),
    key.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
  ];
  const others = [...new Set(typos)].filter((typo) => !Object.hasOwn(config, typo));
  return others.map((typo) => ({ at: key, what: `written ${typo}`, without, config: { ...without, [typo]: config[key] } }));
}
