import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { isHidden, mayBeHidden, piecesOf } from '../../src/schedule/documents.js';
import type { Mask, Range } from '../../src/schedule/op.js';

interface Case {
  readonly name: string;
  readonly starts: readonly number[];
  readonly tokens: readonly [number, number];
  readonly kv: readonly [number, number];
  readonly mask: Mask;
  readonly hidden: boolean;
  readonly pieces: readonly {
    readonly queries: readonly [number, number];
    readonly keys: readonly [number, number];
    readonly mask: Mask;
    readonly pairs: number;
  }[];
}

const CASES = JSON.parse(readFileSync(new URL('../fixtures/documents.json', import.meta.url), 'utf8')) as readonly Case[];
const range = ([start, end]: readonly [number, number]): Range => ({ start, end });

describe('documents', () => {
  it.each(CASES)('cut an op as the worker does: $name', ({ starts, tokens, kv, mask, hidden, pieces }) => {
    const found = piecesOf(starts, range(tokens), range(kv), mask);
    expect(found).toEqual(pieces.map((one) => ({ ...one, queries: range(one.queries), keys: range(one.keys) })));
    expect(isHidden({ tokens: range(tokens), kv: range(kv) }, starts)).toBe(hidden);
    // What is left out has no pieces.
    if (hidden) expect(found).toEqual([]);
  });

  it('leave out no op whose keys end with its queries, and none without keys', () => {
    expect(mayBeHidden({ tokens: range([8, 16]), kv: range([0, 16]) })).toBe(false);
    expect(mayBeHidden({ tokens: range([8, 16]) })).toBe(false);
    expect(isHidden({ tokens: range([8, 16]) }, [0, 8])).toBe(false);
    expect(mayBeHidden({ tokens: range([8, 16]), kv: range([0, 8]) })).toBe(true);
  });
});
