/**
 * A section drawn as the paper draws it: time runs down, one column per stream, grouped by the turn of the outer loop.
 * The op text of schedule/text.ts follows each op's short name, so nothing is hidden.
 */
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { OP_KINDS, type Access, type Op, type Section, type SectionName, STREAMS, type Stream } from '../schedule/op.js';
import { accessToText, rangeToText } from '../schedule/text.js';

type ViewPlan = Pick<ExecutionPlan, 'schedule' | 'buffers' | 'strategy'>;

/** Lines for a terminal; the columns are as wide as their longest short name. */
export function sectionView(plan: ViewPlan, name: SectionName): string {
  const section = plan.schedule[name];
  const short = section.ops.map((op) => shortName(op, plan));
  const width = columnWidths(section, short);
  const idWidth = String(section.ops.length).length;
  const lines = [title(plan, section), '', header(idWidth, width)];
  for (const part of section.parts) {
    lines.push('', `part L${part.layerSlot}: layer slot ${part.layerSlot} of the segment`);
    let turn: string | undefined;
    for (const op of section.ops.slice(part.start, part.end)) {
      const next = turnOf(op, plan) ?? turn;
      if (next !== turn) lines.push(`-- ${next}`);
      turn = next;
      lines.push(row(op, short[op.id] ?? op.kind, plan, idWidth, width));
    }
  }
  return lines.join('\n');
}

function title({ strategy }: ViewPlan, section: Section): string {
  const counts = STREAMS.map((stream) => `${section.ops.filter((op) => op.stream === stream).length} ${stream}`);
  return `${section.name}, policy ${strategy.policy}: ${strategy.numChunks} chunks of ${strategy.chunkTokens} tokens, ${section.ops.length} ops (${counts.join(', ')})`;
}

type Widths = Readonly<Record<Stream, number>>;

function columnWidths(section: Section, short: readonly string[]): Widths {
  const widest = (stream: Stream): number =>
    section.ops.reduce((most, op) => (op.stream === stream ? Math.max(most, (short[op.id] ?? '').length) : most), stream.length);
  return { compute: widest('compute'), h2d: widest('h2d'), d2h: widest('d2h'), comm: widest('comm') };
}

function header(idWidth: number, width: Widths): string {
  const cells = STREAMS.map((stream) => stream.padEnd(width[stream]));
  return `${'id'.padStart(idWidth + 2)}  ${cells.join('  ')}  views and waits`;
}

function row(op: Op, short: string, plan: ViewPlan, idWidth: number, width: Widths): string {
  const cells = STREAMS.map((stream) => (op.stream === stream ? short : '.').padEnd(width[stream]));
  return `${String(op.id).padStart(idWidth + 2)}  ${cells.join('  ')}  ${views(op, plan)}`.trimEnd();
}

/** `reads -> writes, += accumulates; after waits`, in the words of the op text. */
function views(op: Op, { buffers }: ViewPlan): string {
  const texts = (accesses: readonly Access[]): string => accesses.map((access) => accessToText(access, buffers)).join(' ');
  return [
    texts(op.reads),
    op.writes.length === 0 ? '' : `-> ${texts(op.writes)}`,
    op.accumulates.length === 0 ? '' : `+= ${texts(op.accumulates)}`,
    op.waits.length === 0 ? '' : `after ${op.waits.join(' ')}`,
  ]
    .filter((text) => text !== '')
    .join(' ');
}

/** `attn q2 k0-1`, `fetch k0`, `post 3`: the kind with chunk numbers. */
export function shortName(op: Op, plan: ViewPlan): string {
  if (op.kv !== undefined) return `${op.kind} q${chunks(op.tokens, plan)} k${chunks(op.kv, plan)}`;
  if (op.kind === 'fetch' || op.kind === 'offload')
    return `${op.kind} ${hostSide(op)
      .map((access) => tensorChunk(access, plan))
      .join(' ')}`;
  return OP_KINDS[op.kind].external ? op.kind : `${op.kind} ${chunks(op.tokens, plan)}`;
}

function chunks(range: { readonly start: number; readonly end: number }, { strategy: { chunkTokens } }: ViewPlan): string {
  const first = Math.floor(range.start / chunkTokens);
  const last = Math.ceil(range.end / chunkTokens) - 1;
  if (range.start % chunkTokens !== 0 || range.end % chunkTokens !== 0) return rangeToText(range);
  return last > first ? `${first}-${last}` : `${first}`;
}

/** The side whose rows are those of the whole sequence; the other one is a ring of a few chunks. */
function hostSide(op: Op): readonly Access[] {
  return op.kind === 'fetch' ? op.reads : op.writes;
}

/** A copied view is one chunk long, so its number follows from its first row. */
function tensorChunk({ buffer, rows }: Access, { buffers }: ViewPlan): string {
  const length = rows.end - rows.start;
  return `${buffers[buffer]?.name ?? `buffer${buffer}`}${length > 0 ? Math.floor(rows.start / length) : ''}`;
}

/** The outer loop's turn that an attention op starts or goes on with; other ops belong to the turn they are in. */
function turnOf(op: Op, plan: ViewPlan): string | undefined {
  const isKvOuter = plan.strategy.backwardOrder === 'keyValueOuterAscending';
  switch (op.kind) {
    case 'attn':
      return `attention: q of chunk ${chunks(op.tokens, plan)}`;
    case 'postBwd':
      return isKvOuter ? 'backward of the output projection and the mlp, all chunks' : undefined;
    case 'attnBwd':
      return isKvOuter && op.kv !== undefined
        ? `attention backward: k, v of chunk ${chunks(op.kv, plan)} (outer), q ascending (inner)`
        : `attention backward: q of chunk ${chunks(op.tokens, plan)}`;
    default:
      return undefined;
  }
}
