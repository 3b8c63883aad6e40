/** Attention ops alone: whether a mask fits the op's queries and keys, and the op's views their number. */
import type { Access, Mask, Op, Range } from '../schedule/op.js';
import { length } from './checks.js';
import type { Context } from './context.js';

export function maskProblem(op: Op, { input: { attributes } }: Context): string | undefined {
  const { kv, tokens, attribute } = op;
  if (kv === undefined || attribute === undefined) return undefined;
  const mask = attributes[attribute]?.mask;
  if (mask === undefined) return undefined;
  return rangeProblem(mask, tokens, kv) ?? rowsProblem(op, tokens, kv);
}

/** The rules of each mask: no query sees a key after it, and the mask leaves out no key that it should not. */
function rangeProblem({ kind }: Mask, tokens: Range, kv: Range): string | undefined {
  const keys = `keys ${kv.start}..${kv.end} of queries ${tokens.start}..${tokens.end}`;
  if (kind === 'full') return kv.end <= tokens.start ? undefined : `sees all ${keys}, some of which come after a query`;
  if (kind === 'window') return kv.end <= tokens.end ? undefined : `has ${keys} behind a window, some of which come after all queries`;
  return kv.end === tokens.end && kv.start <= tokens.start
    ? undefined
    : `has ${keys} behind a causal mask, which wants keys that begin no later and end with them`;
}

/** Views are sharded by heads: a row for every query, a row for every key. */
function rowsProblem({ kind, reads, writes, accumulates }: Op, tokens: Range, kv: Range): string | undefined {
  const [q, k, v, ...more] = reads;
  const queries = kind === 'attn' ? [q, ...writes] : [q, ...more, accumulates[0]];
  const keys = kind === 'attn' ? [k, v] : [k, v, accumulates[1], accumulates[2]];
  return countProblem('queries', queries, length(tokens)) ?? countProblem('keys', keys, length(kv));
}

function countProblem(what: string, views: readonly (Access | undefined)[], expected: number): string | undefined {
  const wrong = views.find((view) => view !== undefined && length(view.rows) !== expected);
  return wrong === undefined ? undefined : `works on ${expected} ${what}, and one of their views has ${length(wrong.rows)} rows`;
}
