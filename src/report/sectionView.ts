/**
 * A section drawn as the paper draws it: time runs down, one column per stream, grouped by the turn of the outer loop.
 * The op text of schedule/text.ts follows each op's short name, so nothing is hidden.
 */
import { drawOp } from '../catalog/ops/index.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import type { Access, Op, Range, Section } from '../schedule/op.js';
import { sectionNamed } from '../schedule/schedule.js';
import { accessToText, attributeToText } from '../schedule/text.js';

type ViewPlan = Pick<ExecutionPlan, 'sections' | 'programs' | 'streams' | 'buffers' | 'attributes' | 'strategy'>;

/** Lines for a terminal; the columns are as wide as their longest short name. Throws a RangeError for a section that is not there. */
export function sectionView(plan: ViewPlan, name: string): string {
  const section = sectionNamed(plan.sections, name);
  const columns = toColumns(section, plan);
  const turnOf = isKeyValueOuter(section) ? keyValueTurn : queryTurn;
  const lines = [title(plan, section), '', header(plan, columns)];
  let turn: string | undefined;
  for (const op of section.ops) {
    const next = turnOf(op, plan) ?? turn;
    if (next !== turn) lines.push(`-- ${next}`);
    turn = next;
    lines.push(row(op, section, plan, columns));
  }
  return lines.join('\n');
}

function title({ strategy, streams, programs }: ViewPlan, { name, params, ops }: Section): string {
  const counts = streams.map((stream) => [ops.filter((op) => op.stream === stream).length, stream] as const).filter(([count]) => count > 0);
  const calls = programs.train.turns.flatMap((turn) => turn.calls).filter((call) => call.section === name);
  return [
    `${name}(${params.map((param) => param.name).join(', ')}), policy ${strategy.policy}: ${strategy.numChunks} chunks of ${strategy.chunkTokens} tokens`,
    `${ops.length} ops (${counts.map((pair) => pair.join(' ')).join(', ')}), called ${calls.length === 1 ? 'once' : `${calls.length} times`} a micro-step`,
  ].join(', ');
}

/** Short names by op, and widths by stream. */
interface Columns {
  readonly short: readonly string[];
  readonly widths: ReadonlyMap<string, number>;
  readonly idWidth: number;
}

function toColumns({ ops }: Section, { streams, buffers, strategy }: ViewPlan): Columns {
  const names = buffers.map((buffer) => buffer.name);
  const short = ops.map((op) => drawOp(op, strategy.chunkTokens, names));
  const widths = new Map(streams.map((stream) => [stream, stream.length]));
  for (const [i, { stream }] of ops.entries()) widths.set(stream, Math.max(widths.get(stream) ?? 0, short[i]?.length ?? 0));
  return { short, widths, idWidth: String(ops.length).length + 2 };
}

function header({ streams }: ViewPlan, { widths, idWidth }: Columns): string {
  const cells = streams.map((stream) => stream.padEnd(widths.get(stream) ?? 0));
  return `${'id'.padStart(idWidth)}  ${cells.join('  ')}  views and waits`;
}

function row(op: Op, section: Section, plan: ViewPlan, { short, widths, idWidth }: Columns): string {
  const cells = plan.streams.map((stream) => (op.stream === stream ? (short[op.id] ?? op.kind) : '.').padEnd(widths.get(stream) ?? 0));
  return `${String(op.id).padStart(idWidth)}  ${cells.join('  ')}  ${views(op, section, plan)}`.trimEnd();
}

/** `mask, reads -> writes, += accumulates; after waits`, in the words of the op text. */
function views(op: Op, section: Section, plan: ViewPlan): string {
  const texts = (accesses: readonly Access[]): string => accesses.map((access) => accessToText(access, section, plan)).join(' ');
  return [
    op.attribute === undefined ? '' : attributeToText(plan.attributes[op.attribute], op.attribute),
    texts(op.reads),
    op.writes.length === 0 ? '' : `-> ${texts(op.writes)}`,
    op.accumulates.length === 0 ? '' : `+= ${texts(op.accumulates)}`,
    op.waits.length === 0 ? '' : `after ${op.waits.join(' ')}`,
  ]
    .filter((text) => text !== '')
    .join(' ');
}

/** Backward in ascending order of keys comes back to later queries for each tile of them; the other order only goes down. */
function isKeyValueOuter({ ops }: Section): boolean {
  const starts = ops.filter(({ kind }) => kind === 'attnBwd').map(({ tokens }) => tokens.start);
  return starts.some((start, i) => start > (starts[i - 1] ?? start));
}

/** The outer loop's turn that an attention op starts or goes on with; other ops belong to the turn they are in. */
function queryTurn(op: Op, plan: ViewPlan): string | undefined {
  if (op.kind === 'attn') return `attention: q of ${chunkName(op.tokens, plan)}`;
  return op.kind === 'attnBwd' ? `attention backward: q of ${chunkName(op.tokens, plan)}` : undefined;
}

function keyValueTurn(op: Op, plan: ViewPlan): string | undefined {
  if (op.kind === 'postBwd' || op.kind === 'postBwdKept') return 'backward of the output projection and the mlp, all chunks';
  if (op.kind !== 'attnBwd' || op.kv === undefined) return queryTurn(op, plan);
  return `attention backward: k, v of ${chunkName(tileOf(op.kv, plan), plan)} (outer), q ascending (inner)`;
}

/** The tile of keys and values that a range of them lies in. */
function tileOf({ start }: Range, { strategy: { chunkTokens, kvTileChunks, numChunks } }: ViewPlan): Range {
  const tokens = chunkTokens * kvTileChunks;
  const first = Math.floor(start / tokens) * tokens;
  return { start: first, end: Math.min(first + tokens, numChunks * chunkTokens) };
}

/** `chunk 3` or `chunks 0-3`. */
function chunkName({ start, end }: Range, { strategy: { chunkTokens } }: ViewPlan): string {
  const first = Math.floor(start / chunkTokens);
  const last = Math.ceil(end / chunkTokens) - 1;
  return last > first ? `chunks ${first}-${last}` : `chunk ${first}`;
}
