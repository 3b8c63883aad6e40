/** Keys and types of a ds_config, as strict as DeepSpeed is, against the table of what it knows. */
import { describe } from './describe.js';
import type { DeepSpeedReport } from './deepspeedReport.js';
import { unknownProblem, unknownRemark } from './deepspeedUnknown.js';
import { DEEPSPEED, type KeyRow, type KeyTable } from './deepspeedTable.js';
import { takenValue, wordsOf } from './deepspeedValue.js';
import { isObject, type JsonObject } from './parseJson.js';

/**
 * The config with every value as DeepSpeed takes it, under the names this project reads: those of stage 3 with their prefix, `bf16`,
 * and new ones for old. "auto" is left where `isFilled` says that it will get a value; elsewhere DeepSpeed's default holds.
 */
export function checkKeys(config: JsonObject, report: DeepSpeedReport, isFilled: (path: string) => boolean = () => false): JsonObject {
  const removed = refuseRemoved(config, report);
  const checker = new Checker(report, isFilled);
  const kept = Object.fromEntries(Object.entries(config).filter(([key]) => !removed.includes(key)));
  return renamed(checker.section(withBooleanZero(kept, report), DEEPSPEED.keys, '', false));
}

/** Returns the top-level keys that were refused. */
function refuseRemoved(config: JsonObject, report: DeepSpeedReport): readonly string[] {
  const zero = config.zero_optimization;
  const inZero = isObject(zero) ? DEEPSPEED.removedFromZero.filter((key) => key in zero) : [];
  const atTop = DEEPSPEED.removed.filter((key) => key in config);
  for (const path of [...atTop, ...inZero.map((key) => `zero_optimization.${key}`)]) {
    const text = `: DeepSpeed ${DEEPSPEED.version} has removed this`;
    report.add({ path, text, code: 'unsupported', hint: 'delete the key' });
  }
  return atTop;
}

/** `"zero_optimization": true` is an old way to write stage 1 (`read_zero_config_deprecated`, runtime/zero/config.py). */
function withBooleanZero(config: JsonObject, report: DeepSpeedReport): JsonObject {
  const { zero_optimization: zero, allgather_size: size = 5e8 } = config;
  if (typeof zero !== 'boolean') return config;
  report.remarks.push(`deepspeed.zero_optimization=${zero} is an old way to write stage ${Number(zero)}`);
  return { ...config, zero_optimization: zero ? { stage: 1, allgather_bucket_size: size } : { stage: 0 } };
}

type Entry = readonly [key: string, value: unknown];

class Checker {
  readonly #report: DeepSpeedReport;
  readonly #isFilled: (path: string) => boolean;
  readonly #defaulted: string[] = [];

  constructor(report: DeepSpeedReport, isFilled: (path: string) => boolean) {
    this.#report = report;
    this.#isFilled = isFilled;
  }

  section(config: JsonObject, table: KeyTable, at: string, isModel: boolean): JsonObject {
    const entries = Object.entries(config).flatMap(([key, value]): readonly Entry[] => {
      const path = at === '' ? key : `${at}.${key}`;
      const row = rowOf(table, key);
      if (row === undefined) return this.#unknown(path, value, table, isModel);
      if (row.isSecondName && Object.hasOwn(config, row.name)) return this.#bothNames(path, row.name);
      return this.#value(row.row, value, path, isModel).map((taken) => [row.written, taken] as const);
    });
    if (at === '' && this.#defaulted.length > 0) this.#report.remarks.push(defaultsRemark(this.#defaulted));
    return Object.fromEntries(entries);
  }

  /** None where the key is as good as absent. */
  #value(row: KeyRow, value: unknown, path: string, isModel: boolean): readonly unknown[] {
    if (value === undefined) return [];
    if (value === 'auto' && row.type !== 'any') {
      if (!this.#auto(row, path, isModel)) return this.#wrong(row, value, path);
      return this.#isFilled(path) ? [value] : [];
    }
    if (value === null && row.nullable === true) return isModel ? [] : nullIn(row);
    const taken = takenValue(row, value, isModel);
    if (taken === undefined) return this.#wrong(row, value, path);
    if (row.keys === undefined) return [taken];
    return [this.section(taken as JsonObject, row.keys, path, row.strict === true)];
  }

  /** Whether "auto" is filled, or dropped by DeepSpeed. */
  #auto(row: KeyRow, path: string, isModel: boolean): boolean {
    if (this.#isFilled(path)) return true;
    if (!isModel && row.auto !== true) return false;
    this.#defaulted.push(row.default === undefined ? path : `${path}=${JSON.stringify(row.default)}`);
    return true;
  }

  #unknown(path: string, value: unknown, table: KeyTable, isModel: boolean): readonly Entry[] {
    const key = path.split('.').at(-1) ?? path;
    if (DEEPSPEED.removedFromZero.includes(key)) return [];
    if (isModel) {
      // A model drops "auto" before it looks at its keys.
      if (value !== 'auto') this.#report.add(unknownProblem(path, table));
      return [];
    }
    this.#report.remarks.push(unknownRemark(path, table));
    return [[key, value]];
  }

  #bothNames(path: string, name: string): readonly [] {
    const text = `: '${name}' is given as well, which is the same key`;
    this.#report.add({ path, text, code: 'duplicate-key', hint: 'keep one of them' });
    return [];
  }

  #wrong(row: KeyRow, value: unknown, path: string): readonly [] {
    const expected = wordsOf(row);
    this.#report.add({
      path,
      text: `: expected ${expected}, found ${describe(value)}`,
      code: value === 'auto' ? 'unresolved-auto' : 'invalid-value',
      hint: `give ${expected}`,
      details: { expected },
    });
    return [];
  }
}

interface Found {
  readonly row: KeyRow;
  /** The name by which this project reads the key, and the one that DeepSpeed's own field has. */
  readonly written: string;
  readonly name: string;
  readonly isSecondName: boolean;
}

function rowOf(table: KeyTable, key: string): Found | undefined {
  const own = Object.hasOwn(table, key) ? table[key] : undefined;
  if (own !== undefined) return { row: own, written: own.alias ?? key, name: key, isSecondName: false };
  const aliased = Object.entries(table).find(([, { alias }]) => alias === key);
  if (aliased === undefined) return undefined;
  return { row: aliased[1], written: key, name: aliased[0], isSecondName: true };
}

/** A plain dict's null is falsy where a switch is asked for, and where no default stands in its place no value. */
function nullIn(row: KeyRow): readonly unknown[] {
  if (row.type === 'boolean') return [false];
  return row.default === undefined || row.keys !== undefined ? [] : [null];
}

function defaultsRemark(paths: readonly string[]): string {
  return `deepspeed: "auto" is DeepSpeed's default where nothing fills it: ${paths.join(', ')}`;
}

/** DeepSpeed reads `bf16` and looks for `bfloat16` only where that is missing or null. */
function renamed(config: JsonObject): JsonObject {
  const { bfloat16, ...rest } = config;
  return bfloat16 === undefined || rest.bf16 !== undefined ? rest : { ...rest, bf16: bfloat16 };
}
