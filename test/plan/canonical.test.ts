import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalJson } from '../../src/plan/canonical.js';

describe('canonicalJson', () => {
  it('sorts keys by code unit, escapes nothing it need not, prints numbers as JavaScript does', () => {
    const value = { b: [1, 2.5, 1e-6, 1e21, 1e-7, -0], a: { ü: 'ß☃', Z: null, a: true }, '': '"\n' };
    expect(canonicalJson(value)).toBe('{"":"\\"\\n","a":{"Z":null,"a":true,"ü":"ß☃"},"b":[1,2.5,0.000001,1e+21,1e-7,0]}');
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, [undefined], () => 0])('refuses %s', (value) => {
    expect(() => canonicalJson(value)).toThrow(TypeError);
  });

  it('is JSON of the same value, whatever the order of keys', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = canonicalJson(value);
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)));
        expect(canonicalJson(reverseKeys(value))).toBe(text);
      }),
    );
  });
});

function reverseKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reverseKeys);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, item]) => [key, reverseKeys(item)]),
  );
}
