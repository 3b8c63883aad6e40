/** Weights that do not train, by names and patterns of names. */
import { FpdtError } from '../../spec/errors.js';
import { nearestKey } from '../../spec/nearestKey.js';

/** A weight by a name of the Hugging Face model's; a tied one has two. */
export interface NamedWeight {
  readonly name: string;
  /** The name that the plan has for it. */
  readonly weight: string;
}

/**
 * The weights that `patterns` match: names, in which `*` stands for any text, dots too, `?` for one character and `[...]` for one of a set.
 * Throws `no-such-weight` for a pattern that matches none, and `nothing-trains` where all are frozen.
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
  const parts = pattern.split(/(\*|\?|\[[^\]]+\])/).map((part, i) => (i % 2 === 0 ? literal(part) : wildcard(part)));
  return new RegExp(`^${parts.join('')}$`);
}

function literal(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}

function wildcard(part: string): string {
  if (part === '*') return '.*';
  if (part === '?') return '.';
  return `[${part.slice(1, -1).replace(/^!/, '^').replaceAll('\\', '\\\\')}]`;
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
