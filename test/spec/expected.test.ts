/** What errors say was expected, for each shape of schema. */
import { describe, expect, test } from 'vitest';
import * as z from 'zod';
import { parseWith } from '../../src/spec/parseJson.js';
import { errorOf } from './inputs.js';

const count = z.int().min(1);
const name = z.string().min(1);
const pair = z.strictObject({ kind: z.literal('pair') });

describe('what was expected, and the same as a hint', () => {
  test.each<[string, z.ZodType, unknown]>([
    ['a text', z.string(), 3],
    ['a text that is not empty', name, ''],
    ['a text of at least 3 characters', z.string().min(3), 'ab'],
    ['a text of at most 1 character', z.string().max(1), 'ab'],
    ['a text of exactly 3 characters', z.string().length(3), 'ab'],
    ['a number', z.number(), '1'],
    ['a number', z.number(), Number.NaN],
    ['a number > 0', z.number().positive(), 0],
    ['a number >= 0', z.number().min(0), -1],
    ['a number < 3', z.number().lt(3), 3],
    ['a number <= 3', z.number().max(3), 4],
    ['a whole number', count, 0.5],
    ['a number >= 1', count, 0],
    ['a whole number <= 9007199254740991', count, 2 ** 60],
    ['a whole number >= -9007199254740991', z.int(), -(2 ** 60)],
    ['true or false', z.boolean(), 1],
    ['null', z.null(), 1],
    ['a list', z.array(count), 3],
    ['a list that is not empty', z.array(count).min(1), []],
    ['a list of at least 2 items', z.tuple([count, count]), [1]],
    ['a list of at most 2 items', z.tuple([count, count]), [1, 2, 3]],
    ['a list of exactly 2 items', z.array(count).length(2), []],
    ['a list of exactly 1 item', z.array(count).length(1), []],
    ['a list', z.tuple([count, count]), 'x'],
    ['an object', pair, []],
    ['an object', z.record(z.string(), count), 1],
    ['"a" or "b"', z.enum(['a', 'b']), 'c'],
    ['"a"', z.literal('a'), 'c'],
    ['a number or a text', z.union([z.number(), z.string()]), true],
    ['a text or a list', z.union([name, z.array(name).min(1)]), 3],
    ['a list that is not empty', z.union([name, z.array(name).min(1)]), []],
    ['a text', z.union([z.string(), name]), 3],
    ['a number or true or false or null', z.union([z.number(), z.union([z.boolean(), z.null()])]), 'x'],
    ['"auto" or a number', z.union([z.enum(['auto']), z.number()]), true],
    ['a number that is not 0', z.number().refine((value) => value !== 0, 'expected a number that is not 0'), 0],
    ['another value (Invalid string: must match pattern /^a/)', z.string().regex(/^a/), 'b'],
    ['another value (Invalid number: must be a multiple of 3)', z.number().multipleOf(3), 4],
  ])('%s', (words, schema, value) => {
    const { code, message, hint } = errorOf(() => parseWith(z.strictObject({ key: schema }), { key: value }, 'run'));
    expect({ code, message: message.replace(/, found .*$/, ''), hint }).toEqual({
      code: 'invalid-value',
      message: `run.key: expected ${words}`,
      hint: `give ${words}`,
    });
  });

  test('where nothing is given, and past the line that an error has', () => {
    expect(errorOf(() => parseWith(z.strictObject({ key: count }), {}, 'run'))).toMatchObject({
      code: 'missing-key',
      message: 'run.key: expected a number, found nothing',
      hint: 'give a number',
    });
    const long = (value: unknown): string => errorOf(() => parseWith(z.null(), value, 'it')).message;
    expect(long('x'.repeat(100))).toMatch(/found a text "xxx.*\.\.\.$/);
    expect(long(Array.from({ length: 100 }, () => 1))).toMatch(/found a list \[1,1.*\.\.\.$/);
    expect(long({ key: 'x'.repeat(100) })).toMatch(/found an object \{"key".*\.\.\.$/);
  });
});
