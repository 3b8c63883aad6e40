/** Small questions that several checks ask. */
import type { Range } from '../schedule/op.js';

/** A whole number that is not negative, and exact. */
export function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

export function isRange({ start, end }: Range): boolean {
  return isCount(start) && isCount(end) && start <= end;
}

/** Each value that is there more than once. */
export function repeated(values: readonly string[]): readonly string[] {
  return [...new Set(values.filter((value, i) => values.indexOf(value) !== i))];
}

export function length({ start, end }: Range): number {
  return end - start;
}
