/** Sizes as people write them, and the arithmetic of chunks over ranks. */
import { FpdtError } from './errors.js';
import type { RunSpec } from './types.js';

const SUFFIXES: Readonly<Record<string, number>> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 };

/** Tokens from a number or from text such as `128K` or `2M`, where K is 1024 and M 1024 * 1024. */
export function parseTokens(value: number | string, what = 'seqLen'): number {
  const tokens = typeof value === 'number' ? value : parseText(value);
  if (Number.isSafeInteger(tokens) && tokens >= 1) return tokens;
  throw new FpdtError(`${what}: expected a whole number of tokens of at least 1, found ${JSON.stringify(value)}`, {
    code: 'invalid-value',
    hint: "write a number, or text such as '128K' (131,072) or '2M' (2,097,152)",
  });
}

function parseText(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMG]?)$/i.exec(text.trim());
  if (match === null) return Number.NaN;
  return Number(match[1]) * (SUFFIXES[(match[2] as string).toUpperCase()] as number);
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

/** seqLen rounded up so that every one of `numChunks` chunks divides over the ranks. The rest is padded and masked. */
export function padSeqLen(seqLen: number, numChunks: number, sequenceParallelSize: number): number {
  return roundUp(seqLen, numChunks * sequenceParallelSize);
}

/** The run with its padding for a chunk count, once the solver has chosen one. */
export function withChunks(run: RunSpec, numChunks: number): RunSpec {
  return { ...run, paddedSeqLen: padSeqLen(run.seqLen, numChunks, run.sequenceParallelSize) };
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
