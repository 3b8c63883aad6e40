/** Reading user input: JSON files, and strict parsing with errors that name the path, the expected and the nearest key. */
import * as z from 'zod';
import { describe } from './describe.js';
import { FpdtError } from './errors.js';
import { expected } from './expected.js';
import { readJsonFile } from './jsonFile.js';
import { checkJsonSafe } from './jsonSafe.js';
import { nearestKey } from './nearestKey.js';

export type JsonObject = Readonly<Record<string, unknown>>;

/** A JSON object given as such or as the path of a file; `what` names it in errors, e.g. `model config`. */
export function readJsonObject(input: string | JsonObject, what: string): JsonObject {
  const value = typeof input === 'string' ? readJsonFile(input, what) : input;
  if (!isObject(value)) {
    throw new FpdtError(`${what}: expected a JSON object, found ${describe(value)}`, {
      code: 'invalid-value',
      hint: `give the path of a JSON file for the ${what}, or an object`,
    });
  }
  if (typeof input !== 'string') checkJsonSafe(value, what);
  return value;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What lies under keys of objects and numbers of lists; undefined where there is nothing. */
export function valueIn(root: unknown, path: readonly PropertyKey[]): unknown {
  const step = (value: unknown, key: PropertyKey): unknown =>
    typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? (value as Record<PropertyKey, unknown>)[key] : undefined;
  return path.reduce(step, root);
}

/** zod makes code for a schema when it is first used, which takes longer than to parse the one value of a process without it. */
export const PARSE_ONCE = { jitless: true } as const;

/** Parses with a zod schema; the first problem becomes an FpdtError. `what` prefixes the path, e.g. `run.seqLen`. */
export function parseWith<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value, PARSE_ONCE);
  if (result.success) return result.data;
  throw toErrors(result.error.issues[0] as z.core.$ZodIssue, schema, value, what)[0] as FpdtError;
}

/** All that is wrong with a value, as `parseWith` would say it of each. */
export function problemsWith(schema: z.ZodType, value: unknown, what: string): readonly FpdtError[] {
  const result = schema.safeParse(value, PARSE_ONCE);
  return result.success ? [] : result.error.issues.flatMap((issue) => toErrors(issue, schema, value, what));
}

function toErrors(outer: z.core.$ZodIssue, schema: z.ZodType, root: unknown, what: string): readonly FpdtError[] {
  const issue = innermost(outer);
  const at = [what, ...issue.path.map(String)].join('.');
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeysAt(schema, issue.path);
    return issue.keys.map((key) => unknownKey(key, known, at));
  }
  const found = valueIn(root, issue.path);
  const missing = found === undefined ? misspeltFor(issue, root) : undefined;
  const error = new FpdtError(`${at}: expected ${expected(issue)}, found ${describe(found)}`, {
    code: found === undefined ? 'missing-key' : 'invalid-value',
    details: { path: at },
    hint: missing === undefined ? `give ${expected(issue)}` : `'${missing}' was given; did you mean '${String(issue.path.at(-1))}'?`,
  });
  return [error];
}

export function unknownKey(key: string, known: readonly string[], at: string): FpdtError {
  const nearest = nearestKey(key, known);
  return new FpdtError(`${at}: unknown key '${key}'`, {
    code: 'unknown-key',
    hint: nearest === undefined ? `known keys: ${known.join(', ')}` : `did you mean '${nearest}'?`,
    details: { key, path: at, ...(nearest === undefined ? {} : { nearest }) },
  });
}

/** A required key that is absent may be there under a misspelt name. */
function misspeltFor(issue: z.core.$ZodIssue, root: unknown): string | undefined {
  const parent = valueIn(root, issue.path.slice(0, -1));
  const key = issue.path.at(-1);
  if (typeof key !== 'string' || !isObject(parent)) return undefined;
  return nearestKey(key, Object.keys(parent));
}

const OTHER_TYPE: ReadonlySet<unknown> = new Set(['invalid_type', 'invalid_value', 'invalid_union']);

/** Where a value is of one of a union's types but for something in it, that is the problem. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== 'invalid_union') return issue;
  const firsts = issue.errors.flatMap(([first]) => (first === undefined ? [] : [innermost(first)]));
  const inside = firsts.find(({ code, path }) => path.length > 0 || !OTHER_TYPE.has(code));
  return inside === undefined ? issue : { ...inside, path: [...issue.path, ...inside.path] };
}

function knownKeysAt(schema: z.ZodType, path: readonly PropertyKey[]): readonly string[] {
  let current: z.ZodType | undefined = unwrap(schema);
  for (const key of path) {
    if (current instanceof z.ZodArray) current = unwrap(current.element as z.ZodType);
    else current = current instanceof z.ZodObject ? unwrap((current.shape as Record<string, z.ZodType>)[String(key)]) : undefined;
  }
  return current instanceof z.ZodObject ? Object.keys(current.shape) : [];
}

function unwrap(schema: z.ZodType | undefined): z.ZodType | undefined {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable || schema instanceof z.ZodDefault) {
    return unwrap(schema.unwrap() as z.ZodType);
  }
  if (schema instanceof z.ZodUnion) {
    return (schema.options as readonly z.ZodType[]).map(unwrap).find((option) => option instanceof z.ZodObject);
  }
  return schema;
}
