/**
 * What DeepSpeed 0.19.8 knows of a ds_config: keys with types, ranges and defaults, constructors of optimizers and schedulers. Generated
 * from the installed version (scripts/deepspeed/table.py); a test fails when the two differ.
 */
import table from './deepspeedTable.json' with { type: 'json' };

export type KeyType = 'integer' | 'number' | 'boolean' | 'string' | 'list' | 'object' | 'any';

export interface KeyRow {
  readonly type: KeyType;
  /** Takes null. */
  readonly nullable?: boolean;
  /** Takes "auto", of a section that is a plain dict. Models drop it and have their default. */
  readonly auto?: boolean;
  /** The section is a pydantic model: a key it does not know is refused. Those of plain dicts are not looked at. */
  readonly strict?: boolean;
  readonly keys?: KeyTable;
  readonly default?: unknown;
  readonly values?: readonly unknown[];
  readonly min?: number;
  readonly max?: number;
  readonly above?: number;
  readonly below?: number;
  /** true is not taken for 1. */
  readonly noBoolean?: boolean;
  /** The name it is known by; the key's own does as well. */
  readonly alias?: string;
  /** Of an old name: the key that has its place. */
  readonly becomes?: string;
}

export interface KeyTable {
  readonly [key: string]: KeyRow;
}

/** Parameters of a constructor; one that has no default must be given. */
export interface Signature {
  readonly [parameter: string]: { readonly default?: unknown };
}

interface DeepSpeedTable {
  readonly version: string;
  readonly keys: KeyTable;
  /** Keys that DeepSpeed has removed and refuses, at the top and in zero_optimization. */
  readonly removed: readonly string[];
  readonly removedFromZero: readonly string[];
  readonly optimizers: { readonly [name: string]: Signature };
  readonly schedulers: { readonly [name: string]: Signature };
}

// The types of a JSON file are as narrow as what it happens to hold.
export const DEEPSPEED = table as unknown as DeepSpeedTable;

/** The row of a key such as `zero_optimization.stage`, by either of its names. */
export function keyRow(path: string): KeyRow | undefined {
  const parts = path.split('.');
  const parent = parts.slice(0, -1).reduce<KeyTable | undefined>((keys, part) => keys?.[part]?.keys, DEEPSPEED.keys);
  return parent === undefined ? undefined : rowIn(parent, parts.at(-1) ?? '');
}

export function rowIn(table: KeyTable, key: string): KeyRow | undefined {
  if (Object.hasOwn(table, key)) return table[key];
  return Object.values(table).find(({ alias }) => alias === key);
}

/** Sections that know a key of this name; the top has an empty path. */
export function sectionsWith(key: string, keys: KeyTable = DEEPSPEED.keys, path = ''): readonly string[] {
  const here = rowIn(keys, key) === undefined ? [] : [path];
  const inside = Object.entries(keys).flatMap(([name, row]) =>
    row.keys === undefined ? [] : sectionsWith(key, row.keys, path === '' ? name : `${path}.${name}`),
  );
  return [...here, ...inside];
}
