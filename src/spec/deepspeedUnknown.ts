/** Keys that DeepSpeed does not know: refused in sections that are models, ignored elsewhere. What is meant is guessed by name and place. */
import type { Problem } from './deepspeedReport.js';
import { DEEPSPEED, type KeyTable, sectionsWith } from './deepspeedTable.js';
import { nearestKey } from './nearestKey.js';

export function unknownProblem(path: string, table: KeyTable): Problem {
  const { key, at } = split(path);
  const { nearest, hint } = meant(path, table);
  return {
    path,
    text: `: DeepSpeed refuses keys that it does not know in ${at}`,
    code: 'unknown-key',
    hint: hint ?? `known keys: ${Object.keys(table).join(', ')}`,
    details: { key, path: `deepspeed.${at}`, ...(nearest === undefined ? {} : { nearest }) },
  };
}

export function unknownRemark(path: string, table: KeyTable): string {
  const { hint } = meant(path, table);
  return `deepspeed.${path} has no effect: DeepSpeed ${DEEPSPEED.version} does not know the key${hint === undefined ? '' : `; ${hint}`}`;
}

interface Meant {
  readonly nearest?: string;
  readonly hint?: string;
}

/** The section that knows the very key, or else the nearest key of this one. */
function meant(path: string, table: KeyTable): Meant {
  const { key } = split(path);
  const [section] = sectionsWith(key);
  if (section !== undefined) return { hint: section === '' ? `'${key}' belongs to the top level` : `'${key}' belongs in ${section}` };
  const names = Object.entries(table).flatMap(([name, { alias }]) => (alias === undefined ? [name] : [name, alias]));
  const nearest = nearestKey(key, names);
  return nearest === undefined ? {} : { nearest, hint: `did you mean '${nearest}'?` };
}

function split(path: string): { readonly key: string; readonly at: string } {
  const parts = path.split('.');
  return { key: parts.at(-1) ?? path, at: parts.slice(0, -1).join('.') };
}
