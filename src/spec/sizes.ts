/** Sizes as people write them, and the arithmetic of chunks over ranks. */
import { FpdtError } from './errors.js';
import type { RunSpec } from './types.js';

const SUFFIXES: Readonly<Record<string, number>> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 };

/** Tokens from a number or from text such as `128K` or `2M`, where K is 1024 and M 1024 * 1024. */
export function parseTokens(value: number | string, what = 'seqLen'): number {
  return parseSize(value, what, 'tokens', "'128K' (131,072) or '2M' (2,097,152)");
}

/** Bytes from a number or from text such as `80G`, `80GiB` or `1.5T`, in powers of 1024. */
export function parseBytes(value: number | string, what: string): number {
  const text = typeof value === 'string' ? value.replace(/i?B\s*$/i, '') : value;
  return parseSize(text, what, 'bytes', "'80G' (80 GiB) or '1.5T' (1.5 TiB)", value);
}

function parseSize(value: number | string, what: string, unit: string, examples: string, given = value): number {
  const size = typeof value === 'number' ? value : parseText(value);
  if (Number.isSafeInteger(size) && size >= 1) return size;
  throw new FpdtError(`${what}: expected a whole number of ${unit} of at least 1, found ${JSON.stringify(given)}`, {
    code: 'invalid-value',
    hint: `write a number, or text such as ${examples}`,
  });
}

function parseText(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)$/i.exec(text.trim());
  if (match === null) return Number.NaN;
  return Number(match[1]) * (SUFFIXES[(match[2] as string).toUpperCase()] as number);
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

type Divided = Pick<RunSpec, 'seqLen' | 'sequenceParallelSize' | 'rowTile'>;

/** seqLen rounded up so that every one of `numChunks` chunks divides over the ranks, into whole tiles of rows. The rest is masked. */
export function padSeqLen({ seqLen, sequenceParallelSize, rowTile }: Divided, numChunks: number): number {
  return roundUp(seqLen, numChunks * sequenceParallelSize * rowTile);
}

/** The run with its padding for a chunk count, once the solver has chosen one. */
export function withChunks<T extends Divided>(run: T, numChunks: number): T & Pick<RunSpec, 'paddedSeqLen'> {
  return { ...run, paddedSeqLen: padSeqLen(run, numChunks) };
}

/** `71.2 GiB`: three digits, or a whole number, of the largest unit below the number. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let [value, unit] = [bytes, 0];
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Number.isInteger(value) ? value : threeDigits(value)} ${units[unit]}`;
}

/** `1.25 s`, `310 ms`, `42.0 us`. */
export function formatSeconds(seconds: number): string {
  if (seconds === 0) return '0 s';
  if (seconds >= 1) return `${threeDigits(seconds)} s`;
  return seconds >= 1e-3 ? `${threeDigits(seconds * 1e3)} ms` : `${threeDigits(seconds * 1e6)} us`;
}

function threeDigits(value: number): string {
  const decimals = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(decimals);
}
