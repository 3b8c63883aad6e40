/** A value as an error shows it: what it is, and no more than a line of it. */
import { TYPE_WORDS } from './typeWords.js';

export function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = textOf(value);
  return text.length > 60 ? `${TYPE_WORDS[typeOfLong(value)]} ${text.slice(0, 57)}...` : text;
}

function typeOfLong(value: unknown): 'string' | 'list' | 'object' {
  if (typeof value === 'string') return 'string';
  return Array.isArray(value) ? 'list' : 'object';
}

/** JSON where the value has any, which functions, NaN and circles have not. */
function textOf(value: unknown): string {
  if (typeof value === 'number') return String(value);
  try {
    return JSON.stringify(value) ?? typeof value;
  } catch {
    return Array.isArray(value) ? '[...]' : typeof value;
  }
}
