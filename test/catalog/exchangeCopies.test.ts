import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { exchangeCopies } from '../../src/catalog/ops/exchangeCopies.js';

interface Exchange {
  readonly name: string;
  readonly lists: readonly (readonly number[])[];
  readonly packed: number;
  readonly unpacked: number;
  readonly summed: boolean;
}

/** Held against the worker's own in python/tests/test_exchange_messages.py. */
const EXCHANGES = JSON.parse(readFileSync('test/fixtures/exchanges.json', 'utf8')) as readonly Exchange[];

test.each(EXCHANGES)('$name', ({ lists, packed, unpacked, summed }) => {
  expect(exchangeCopies(lists)).toEqual({ packed, unpacked, summed });
});
