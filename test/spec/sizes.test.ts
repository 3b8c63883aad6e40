import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FpdtError } from '../../src/spec/errors.js';
import { formatBytes, padSeqLen, parseBytes, parseTokens } from '../../src/spec/sizes.js';

test('tokens are read from numbers and from text', () => {
  expect(parseTokens('2M')).toBe(2 * 1024 * 1024);
  expect(parseTokens('128K')).toBe(131072);
  expect(parseTokens('1.5k')).toBe(1536);
  expect(parseTokens(' 4096 ')).toBe(4096);
  expect(parseTokens(7)).toBe(7);
});

test.each(['', '2MB', '-1', '0', '1.5', 'two', 0, -4, 2.5, Number.NaN, Number.POSITIVE_INFINITY])('%j is refused', (value) => {
  expect(() => parseTokens(value)).toThrow(FpdtError);
});

test('padding reaches the next multiple of chunks times ranks times tiles, by less than one', () => {
  const count = fc.integer({ min: 1, max: 64 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1e6 }), count, count, fc.constantFrom(1, 128), (seqLen, chunks, ranks, rowTile) => {
      const padded = padSeqLen({ seqLen, sequenceParallelSize: ranks, rowTile }, chunks);
      expect(padded % (chunks * ranks * rowTile)).toBe(0);
      expect(padded).toBeGreaterThanOrEqual(seqLen);
      expect(padded - seqLen).toBeLessThan(chunks * ranks * rowTile);
    }),
  );
});

test('bytes are written for a reader', () => {
  expect(formatBytes(0)).toBe('0 B');
  expect(formatBytes(1024)).toBe('1 KiB');
  expect(formatBytes(79.15 * 1024 ** 3)).toBe('79.2 GiB');
});

test('bytes in powers of 1024, with or without the B', () => {
  expect(['80G', '80GiB', '80gb', '1.5T', '4096', 4096].map((value) => parseBytes(value, 'hostBytes') / 1024)).toEqual([
    80 * 1024 ** 2,
    80 * 1024 ** 2,
    80 * 1024 ** 2,
    1.5 * 1024 ** 3,
    4,
    4,
  ]);
  expect(() => parseBytes('80 apples', 'cluster.hostBytes')).toThrow(
    'cluster.hostBytes: expected a whole number of bytes of at least 1, found "80 apples"',
  );
});
