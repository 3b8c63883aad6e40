/** What a zod schema expected, in words: `a number >= 1`, `a text or a list that is not empty`. */
import type * as z from 'zod';
import { TYPE_WORDS } from './typeWords.js';

/** A schema's own message, where it has one, says it best. */
export function expected(issue: z.core.$ZodIssue): string {
  return [...new Set(alternatives(issue))].join(' or ');
}

function alternatives(issue: z.core.$ZodIssue): readonly string[] {
  if (issue.message.startsWith('expected ')) return [issue.message.slice('expected '.length)];
  if (issue.code === 'invalid_type') return [wordsOf(issue.expected)];
  if (issue.code === 'invalid_value') return issue.values.map((value) => JSON.stringify(value));
  if (issue.code === 'too_small') return [bounded(issue, issue.minimum, '>')];
  if (issue.code === 'too_big') return [bounded(issue, issue.maximum, '<')];
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    return issue.errors.flatMap(([first]) => (first === undefined ? [] : alternatives(first)));
  }
  return [`another value (${issue.message})`];
}

/** As zod names types. */
const WORDS: Readonly<Record<string, string>> = {
  ...TYPE_WORDS,
  int: TYPE_WORDS.integer,
  array: TYPE_WORDS.list,
  tuple: TYPE_WORDS.list,
  record: TYPE_WORDS.object,
};

function wordsOf(type: string): string {
  return WORDS[type] ?? type;
}

/** Of what has a size, what the size counts. */
const UNITS: Readonly<Record<string, string>> = { string: 'character', array: 'item' };

interface Bound {
  readonly origin: string;
  readonly inclusive?: boolean;
  readonly exact?: boolean;
}

function bounded({ origin, inclusive, exact }: Bound, bound: number | bigint, sign: '>' | '<'): string {
  const unit = UNITS[origin];
  if (unit === undefined) return `${wordsOf(origin)} ${sign}${inclusive === true ? '=' : ''} ${bound}`;
  if (bound === 1 && sign === '>' && exact !== true) return `${wordsOf(origin)} that is not empty`;
  const limit = sign === '>' ? 'at least' : 'at most';
  return `${wordsOf(origin)} of ${exact === true ? 'exactly' : limit} ${bound} ${unit}${bound === 1 ? '' : 's'}`;
}
