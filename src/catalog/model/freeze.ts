/** Weights that do not train, by names and patterns of names. */
import { FpdtError } from '../../spec/errors.js';
import { nearestKey } from '../../spec/nearestKey.js';
import { numberGlobs } from './numberGlobs.js';

/** A weight by a name of the Hugging Face model's; a tied one has two. */
export interface NamedWeight {
  readonly name: string;
  /** The name that the plan has for it. */
  readonly weight: string;
}

/**
 * The weights that `patterns` match: names, in which `*` stands for any text, dots too, `?` for one character, `[...]` for one of a set
 * and `[!...]` for one that is not. Throws `no-such-weight` for a pattern that matches none, `invalid-value` for one whose set is none,
 * and `nothing-trains` where all are frozen.
 */
export function frozenWeights(patterns: readonly string[], weights: readonly NamedWeight[]): ReadonlySet<string> {
  const frozen = new Set<string>();
  for (const pattern of patterns) {
    const matches = globOf(pattern);
    const found = weights.filter(({ name }) => matches.test(name));
    if (found.length === 0) throw noSuchWeight(pattern, weights);
    for (const { weight } of found) frozen.add(weight);
  }
  if (frozen.size > 0 && weights.every(({ weight }) => frozen.has(weight))) {
    throw new FpdtError(`run.freeze: all ${frozen.size} weights are frozen, so that nothing trains`, {
      code: 'nothing-trains',
      hint: `leave out one of ${patterns.map((one) => `'${one}'`).join(', ')}`,
      details: { patterns },
    });
  }
  return frozen;
}

function globOf(pattern: string): RegExp {
  const parts = pattern.split(/(\*|\?|\[[^\]]*\])/).map((part, i) => (i % 2 === 0 ? literal(part, pattern) : wildcard(part, pattern)));
  return new RegExp(`^${parts.join('')}$`, 'u');
}

/** No weight has a bracket in its name. */
function literal(text: string, pattern: string): string {
  if (text.includes('[')) throw notASet(pattern, "a '[' without a ']'", "close it, as in '[0-3]'");
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}

function wildcard(part: string, pattern: string): string {
  if (part === '*') return '.*';
  if (part === '?') return '.';
  const [, not = '', members = ''] = /^\[([!^]?)(.*)\]$/su.exec(part) ?? [];
  if (members === '') throw notASet(pattern, `${part}, a set of nothing`, "write what it is to match, as in '[0-3]' or '[!0]'");
  for (const [range, first = '', last = ''] of members.matchAll(/(.)-(.)/gsu)) {
    if (codeOf(first) > codeOf(last)) throw notASet(pattern, `${part}, whose range ${range} ends before it begins`, ONE_CHARACTER);
  }
  refuseNumbers(part, members, pattern);
  return `[${not === '' ? '' : '^'}${members.replaceAll(/[\\^]/g, String.raw`\$&`)}]`;
}

/** `[0-31]` is a set of four characters, where numbers were meant. */
function refuseNumbers(part: string, members: string, pattern: string): void {
  const [, first = '', last = ''] = /^0*(\d+)-0*(\d+)$/.exec(members) ?? [];
  const isRange = first.length < last.length || (first.length === last.length && first <= last);
  if (!isRange || last.length < 2) return;
  const written = numberGlobs(first, last).map((glob) => `'${pattern.replace(part, glob)}'`);
  const characters = Array.from({ length: 10 }, (_, digit) => `${digit}`)
    .filter((digit) => new RegExp(`[${members}]`).test(digit))
    .join('');
  const hint = part.startsWith(`[${members}`)
    ? `for the numbers write ${written.join(' ')}; for the characters [${characters}]`
    : ONE_CHARACTER;
  throw notASet(pattern, `${part}, a set of the characters ${characters} and not of the numbers ${first} to ${last}`, hint);
}

/** What was meant, mostly, where a range of numbers was written. */
const ONE_CHARACTER =
  "a set stands for one character, and a range in it goes upwards, as in '[0-3]'; layers 8 to 11 are '[8-9]' and '1[01]', two patterns";

function codeOf(character: string): number {
  return character.codePointAt(0) ?? 0;
}

function notASet(pattern: string, what: string, hint: string): FpdtError {
  return new FpdtError(`run.freeze: '${pattern}' has ${what}`, { code: 'invalid-value', hint, details: { pattern } });
}

function noSuchWeight(pattern: string, weights: readonly NamedWeight[]): FpdtError {
  const names = weights.map(({ name }) => name);
  const inside = names.filter((name) => name.startsWith(`${pattern}.`));
  const nearest = inside.length > 0 ? `${pattern}.*` : nearestKey(pattern, pattern.startsWith('*.') ? tails(pattern, names) : names);
  return new FpdtError(`run.freeze: no weight matches '${pattern}'`, {
    code: 'no-such-weight',
    hint: nearest === undefined ? `weights are named like ${examples(names).join(', ')}` : `did you mean '${nearest}'?`,
    details: { pattern, ...(nearest === undefined ? {} : { nearest }) },
  });
}

/** What a pattern that leaves the beginning of a name open may have meant. */
function tails(pattern: string, names: readonly string[]): ReadonlySet<string> {
  const length = pattern.split('.').length - 1;
  return new Set(names.map((name) => `*.${name.split('.').slice(-length).join('.')}`));
}

/** The first, one of the middle, the last. */
function examples(names: readonly string[]): readonly string[] {
  const picked = [0, Math.floor(names.length / 2), names.length - 1].map((at) => names[at]);
  return [...new Set(picked)].filter((name) => name !== undefined).map((name) => `'${name}'`);
}
