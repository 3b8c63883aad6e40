/** Objects that a program gives in the place of a JSON file. */
import { describe } from './describe.js';
import { FpdtError } from './errors.js';
import { MAX_DEPTH } from './textReader.js';

const MAX_VALUES = 1_000_000;

/** Throws for what no JSON file could hold: it would end up in a plan. Keys that are undefined are absent ones. */
export function checkJsonSafe(root: unknown, what: string): void {
  let numValues = 0;
  const check = (value: unknown, path: readonly string[]): void => {
    numValues += 1;
    const wrong = (found: string): FpdtError =>
      new FpdtError(`${[what, ...path.slice(0, 8)].join('.')}: expected a value that JSON has, found ${found}`, {
        code: 'invalid-value',
        hint: 'give numbers that are finite, texts, true, false, null, lists and plain objects',
      });
    if (path.length > MAX_DEPTH) throw wrong(`lists and objects nested more than ${MAX_DEPTH} deep`);
    if (numValues > MAX_VALUES) throw wrong(`more than ${MAX_VALUES} values`);
    if (value === undefined || value === null || typeof value === 'boolean' || typeof value === 'string') return;
    if (typeof value === 'number' && Number.isFinite(value)) return;
    if (typeof value !== 'object') throw wrong(describe(value));
    if (!Array.isArray(value) && ![Object.prototype, null].includes(Object.getPrototypeOf(value))) throw wrong('an object of a class');
    for (const [key, item] of Object.entries(value)) check(item, [...path, key]);
  };
  check(root, []);
}
