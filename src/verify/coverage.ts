/**
 * What a section works on as a whole: attention sees every key that its mask requires once, partial results are merged, and every
 * token adds to weight gradients once. Nothing of this shows in the values of single bytes.
 */
import type { Op, Range } from '../schedule/op.js';
import { type Context, rowOf } from './context.js';
import type { FlatSection } from './flat.js';
import { atOp } from './text.js';

/** The ops of a kind on one range of tokens, in order. */
interface Piece {
  readonly tokens: Range;
  readonly ops: readonly Op[];
}

type Report = (op: Op, problem: string) => void;

/** One past the last token of the sequence, as the schedule's ops have it. */
export function sequenceEnd({ input }: Context): number {
  let end = 0;
  for (const { ops } of input.sections) for (const { tokens } of ops) if (tokens.end > end) end = tokens.end;
  return end;
}

/** `window`: that of the layers that the section is called for; undefined: what its own masks say. */
export function checkCoverage(flat: FlatSection, context: Context, end: number, window: number | null | undefined): void {
  const { violations } = context;
  const report: Report = ({ id }, problem) => {
    if (!violations.isFull) violations.add(atOp(flat, id, problem, context));
  };
  const byHeads = opsByHeads(flat, context, report);
  for (const kinds of byHeads) checkKinds(kinds, context, end, window, report);
}

function checkKinds(
  kinds: ReadonlyMap<string, readonly Op[]>,
  context: Context,
  end: number,
  window: number | null | undefined,
  report: Report,
): void {
  for (const kind of ['attn', 'attnBwd']) {
    const ops = kinds.get(kind) ?? [];
    const pieces = piecesOf(ops);
    const width = window === undefined ? windowOf(ops, context) : (window ?? undefined);
    checkPartition(kind, pieces, end, report);
    for (const piece of pieces) {
      checkWindow(piece, width, context, report);
      checkKeys(piece, width, report);
    }
  }
  checkMerges(kinds, report);
  for (const [kind, ops] of kinds) {
    const row = rowOf(kind);
    const addsGradients = row !== undefined && row.accumulates !== 'many' && row.accumulates.some((name) => name.startsWith('wgrad'));
    if (!addsGradients) continue;
    const pieces = piecesOf(ops);
    checkPartition(kind, pieces, end, report);
    for (const { ops: same } of pieces) if (same[1] !== undefined) report(same[1], `works on tokens that op ${same[0]?.id} has worked on`);
  }
}

/** Of every group of heads its ops by kind, and of those that know no groups. What is done for one group is done for all. */
function opsByHeads({ section }: FlatSection, { input }: Context, report: Report): readonly ReadonlyMap<string, readonly Op[]>[] {
  const kinds = new Map<string, Op[]>();
  const grouped = new Map<number, Map<string, Op[]>>();
  const groupsOf = new Map<string, Op>();
  for (const op of section.ops) {
    const heads = op.attribute === undefined ? undefined : input.attributes[op.attribute]?.heads;
    if (heads?.group === undefined) {
      addTo(kinds, op);
      continue;
    }
    const ofGroup = grouped.get(heads.group) ?? new Map<string, Op[]>();
    grouped.set(heads.group, ofGroup);
    addTo(ofGroup, op);
    groupsOf.set(`${op.kind} ${heads.groups}`, op);
  }
  for (const [text, op] of groupsOf) {
    const [kind = '', groups = ''] = text.split(' ');
    const missing = Array.from({ length: Number(groups) }, (_, group) => group).find((group) => !grouped.get(group)?.has(kind));
    if (missing !== undefined) report(op, `works on one of ${groups} groups of heads, and no ${kind} on group ${missing}`);
    if (kinds.has(kind) && WHOLE.includes(kind)) report(op, 'works on a group of heads, and others of its kind on all');
  }
  return [kinds, ...grouped.values()];
}

/** Kinds whose ops on all heads and on a group of them would do some work twice. */
const WHOLE: readonly string[] = ['attn', 'attnBwd', 'preBwd'];

function addTo(kinds: Map<string, Op[]>, op: Op): void {
  const known = kinds.get(op.kind);
  if (known === undefined) kinds.set(op.kind, [op]);
  else known.push(op);
}

/** By first token; equal ranges are one piece. */
function piecesOf(ops: readonly Op[]): readonly Piece[] {
  const byStart = new Map<number, { tokens: Range; ops: Op[] }[]>();
  for (const op of ops) {
    const known = byStart.get(op.tokens.start) ?? [];
    if (known.length === 0) byStart.set(op.tokens.start, known);
    const piece = known.find(({ tokens }) => tokens.end === op.tokens.end);
    if (piece === undefined) known.push({ tokens: op.tokens, ops: [op] });
    else piece.ops.push(op);
  }
  return [...byStart.values()].flat().sort((a, b) => a.tokens.start - b.tokens.start);
}

/** The pieces cut the sequence without gap or overlap. */
function checkPartition(kind: string, pieces: readonly Piece[], end: number, report: Report): void {
  let done = 0;
  for (const { tokens, ops } of pieces) {
    const [op] = ops;
    if (op !== undefined && tokens.start !== done) {
      report(
        op,
        tokens.start > done
          ? `no ${kind} works on tokens ${done}..${tokens.start}`
          : `${kind} works twice on tokens ${tokens.start}..${done}`,
      );
      return;
    }
    done = tokens.end;
  }
  const last = pieces.at(-1)?.ops[0];
  if (last !== undefined && done < end) report(last, `no ${kind} works on tokens ${done}..${end}`);
}

function maskOf({ attribute }: Op, { input }: Context) {
  return attribute === undefined ? undefined : input.attributes[attribute]?.mask;
}

/** The window that the masks of a section name; a layer has one. */
function windowOf(ops: readonly Op[], context: Context): number | undefined {
  for (const op of ops) {
    const mask = maskOf(op, context);
    if (mask?.kind === 'window') return mask.window;
  }
  return undefined;
}

/** A layer has one window, or none; what no mask hides must lie within it. */
function checkWindow({ tokens, ops }: Piece, window: number | undefined, context: Context, report: Report): void {
  for (const op of ops) {
    const mask = maskOf(op, context);
    const distance = tokens.end - 1 - (op.kv?.start ?? tokens.start);
    if (mask?.kind === 'window' && mask.window !== window)
      report(op, `has a window of ${mask.window} tokens, its layer ${window === undefined ? 'none' : window}`);
    if (mask?.kind !== 'window' && window !== undefined && distance >= window)
      report(op, `sees keys that lie ${distance} before a query, and the window is ${window}`);
  }
}

/** Keys from the first that some query sees to the last query, each once. Before those a window hides ops may bring keys that none sees. */
function checkKeys({ tokens, ops }: Piece, window: number | undefined, report: Report): void {
  const first = window === undefined ? 0 : Math.max(0, tokens.start - window + 1);
  const sorted = ops.toSorted((a, b) => (a.kv?.start ?? 0) - (b.kv?.start ?? 0));
  let done = 0;
  for (const [i, op] of sorted.entries()) {
    const { start, end } = op.kv ?? tokens;
    const wanted = Math.max(done, first);
    if (i > 0 && start < done) report(op, `attends again to keys ${start}..${done} of queries ${tokens.start}..${tokens.end}`);
    if (start > wanted) report(op, missing(wanted, start, op));
    done = Math.max(done, end);
  }
  const last = sorted.at(-1);
  if (last !== undefined && done < tokens.end) report(last, missing(Math.max(done, first), tokens.end, last));
}

function missing(start: number, end: number, { kind, tokens }: Op): string {
  return `no ${kind} of queries ${tokens.start}..${tokens.end} attends to keys ${start}..${end}`;
}

/** n partial results of a chunk take n - 1 merges. */
function checkMerges(kinds: ReadonlyMap<string, readonly Op[]>, report: Report): void {
  const merges = new Map(piecesOf(kinds.get('merge') ?? []).map(({ tokens, ops }) => [`${tokens.start}/${tokens.end}`, ops.length]));
  for (const { tokens, ops } of piecesOf(kinds.get('attn') ?? [])) {
    const count = merges.get(`${tokens.start}/${tokens.end}`) ?? 0;
    const [op] = ops;
    if (op !== undefined && count !== ops.length - 1)
      report(
        op,
        `${ops.length} partial results of queries ${tokens.start}..${tokens.end} are merged ${count} times, expected ${ops.length - 1}`,
      );
  }
}
