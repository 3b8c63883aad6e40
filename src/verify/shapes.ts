/** What an op may look like on its own: its kind's row, its stream, its waits, its attribute, and the bounds of its views. */
import type { OpRow, ViewNames } from '../catalog/ops/index.js';
import type { Buffer } from '../schedule/buffer.js';
import type { Access, Op } from '../schedule/op.js';
import { DTYPE_BYTES } from '../spec/dtype.js';
import { isCount, isRange, length, repeated } from './checks.js';
import { type Context, bufferAt, rowOf } from './context.js';
import type { FlatSection } from './flat.js';
import { maskProblem } from './masks.js';
import { regionProblem } from './regions.js';
import { atOp, viewText } from './text.js';

export function checkShapes(flat: FlatSection, context: Context): void {
  const { violations } = context;
  for (const name of repeated(flat.section.params.map((one) => one.name))) {
    violations.add({ section: flat.section.name, text: name, problem: 'is the name of several parameters' });
  }
  const before = violations.found.length;
  for (let view = 0; view < flat.views.size && !violations.isFull; view++) {
    const problem = viewProblem(flat, view, context);
    if (problem !== undefined)
      violations.add(atOp(flat, flat.views.op[view] as number, `${viewText(flat, view, context)} ${problem}`, context));
  }
  // What ops say of their views needs views that are there.
  if (violations.found.length > before) return;
  for (let id = 0; id < flat.numOps && !violations.isFull; id++) {
    const problem = opProblem(flat, id, context);
    if (problem !== undefined) violations.add(atOp(flat, id, problem, context));
  }
}

/** What is wrong with a view in every call. */
function viewProblem({ section, views }: FlatSection, view: number, { input }: Context): string | undefined {
  const { buffer: id, rows, param, index } = views.access(view);
  const buffer = input.buffers[id];
  if (buffer === undefined) return `names buffer ${id}, and there are ${input.buffers.length}`;
  const numRows = buffer.shape[0] ?? 0;
  if (!isRange(rows) || rows.start === rows.end || rows.end > numRows) return `is outside the ${numRows} rows of ${buffer.name}`;
  const { blockRows } = buffer;
  if (blockRows !== undefined && (rows.start % blockRows !== 0 || length(rows) !== blockRows))
    return `is not one block of ${blockRows} rows of ${buffer.name}`;
  if (!Number.isInteger(param) || param < -1 || param >= section.params.length)
    return `names parameter ${param}, and ${section.name} has ${section.params.length}`;
  if (!isCount(index) || index >= buffer.instances) return `names instance ${index} of the ${buffer.instances} of ${buffer.name}`;
  return undefined;
}

/** The first thing that is wrong with an op; nearly all are right, so nothing is made for one that is. */
function opProblem(flat: FlatSection, id: number, context: Context): string | undefined {
  const op = flat.section.ops[id] as Op;
  const row = rowOf(op.kind);
  if (row === undefined) return `kind ${op.kind} is not in the op table`;
  if (op.id !== id) return `has id ${op.id} at position ${id}`;
  return (
    countProblem(op, row, context) ??
    waitsProblem(op) ??
    tokensProblem(op, row) ??
    attributeProblem(op, row, context) ??
    placeProblem(flat, op, row, context) ??
    maskProblem(op, context) ??
    regionProblem(op, context) ??
    tablesProblem(op, context)
  );
}

function countProblem(op: Op, row: OpRow, context: Context): string | undefined {
  const problem =
    groupProblem('reads', op.reads, row.reads) ??
    groupProblem('writes', op.writes, row.writes) ??
    groupProblem('accumulates', op.accumulates, row.accumulates);
  if (problem !== undefined) return problem;
  const isPaired = row.pairs && !exchangesAllGroups(op, context);
  return isPaired && op.reads.length !== op.writes.length ? `reads ${op.reads.length} views but writes ${op.writes.length}` : undefined;
}

function groupProblem(group: string, { length: count }: readonly Access[], declared: ViewNames): string | undefined {
  if (declared === 'many' ? count > 0 : count === declared.length) return undefined;
  return `${group} ${count} views, its kind ${declared === 'many' ? 'at least one' : `${declared.length} (${declared.join(', ')})`}`;
}

function waitsProblem({ id, waits }: Op): string | undefined {
  for (let i = 0; i < waits.length; i++) {
    const wait = waits[i] as number;
    if (!isCount(wait) || wait >= id) return `waits for op ${wait}, which is not an earlier op of its section`;
  }
  return undefined;
}

function tokensProblem({ tokens, kv, kind }: Op, row: OpRow): string | undefined {
  if (!isRange(tokens) || (tokens.start === tokens.end && !row.external)) return `works on tokens ${tokens.start}..${tokens.end}`;
  const attends = isAttention(kind);
  if (kv === undefined) return attends ? 'names no keys' : undefined;
  if (!attends && !SERVING.includes(kind)) return 'names keys, and its kind attends to none';
  if (!attends && kv.end > tokens.start) return `names keys ${kv.start}..${kv.end}, which no document hides from its queries`;
  return !isRange(kv) || kv.start === kv.end ? `attends to keys ${kv.start}..${kv.end}` : undefined;
}

function attributeProblem(
  { attribute: number, kind, reads, writes }: Op,
  row: OpRow,
  { input: { attributes } }: Context,
): string | undefined {
  const attends = isAttention(kind);
  if (number === undefined) return attends ? 'has no mask' : undefined;
  const attribute = attributes[number];
  if (attribute === undefined) return `names attribute ${number}, and there are ${attributes.length}`;
  if ((attribute.mask !== undefined) !== attends) return attends ? 'has no mask' : 'has a mask, and its kind attends to nothing';
  if (attribute.tiles !== undefined && !row.tiled) return 'works in tiles, which its kind cannot';
  if (attribute.heads === undefined) return undefined;
  if (!OF_HEADS.includes(kind)) return 'works on a group of heads, which its kind knows nothing of';
  if (attribute.heads.group !== undefined) return undefined;
  const [local, sharded] = kind === 'toHeads' ? [reads, writes] : [writes, reads];
  return isExchange(kind) && local.length === 1 && sharded.length === attribute.heads.groups
    ? undefined
    : `reads ${reads.length} views and writes ${writes.length}, of all ${attribute.heads.groups} groups of heads`;
}

/** Kinds whose ops may be left out with the attention op that they name the keys of. */
const SERVING: readonly string[] = ['merge', 'copy'];

/** Kinds whose ops may work on a group of heads. */
const OF_HEADS: readonly string[] = ['toHeads', 'toSequence', 'attn', 'mergeFirst', 'merge', 'attnBwd', 'preBwd'];

/** One view has all heads, each of the others those of a group. */
function exchangesAllGroups({ attribute, kind }: Op, { input }: Context): boolean {
  const heads = attribute === undefined ? undefined : input.attributes[attribute]?.heads;
  return isExchange(kind) && heads !== undefined && heads.group === undefined;
}

function isExchange(kind: string): boolean {
  return kind === 'toHeads' || kind === 'toSequence';
}

function isAttention(kind: string): boolean {
  return kind === 'attn' || kind === 'attnBwd';
}

/** The stream it runs on, and the pools it may touch. */
function placeProblem(flat: FlatSection, op: Op, row: OpRow, context: Context): string | undefined {
  if (row.stream === 'link') return copyProblem(op, context);
  if (op.stream !== row.stream) return `runs on ${op.stream}, its kind on ${row.stream}`;
  if (flat.streams[op.id] === 255) return `runs on ${op.stream}, which is not a stream of the plan`;
  for (let i = flat.firstRead[op.id] as number; i < (flat.firstRead[op.id + 1] as number); i++) {
    const view = flat.opViews[i] as number;
    const buffer = flat.views.buffer[view] as number;
    if (context.poolOf[buffer] !== context.device)
      return `touches ${viewText(flat, view, context)} in ${bufferAt(context, buffer).pool}, and only copies leave the device`;
  }
  return op.kind === 'cast' ? castProblem(op, context) : undefined;
}

/** A copy runs on the stream of the link that all its pairs take. */
function copyProblem({ reads, writes, stream }: Op, context: Context): string | undefined {
  const { poolOf, numPools, linkStream, input } = context;
  for (let i = 0; i < reads.length; i++) {
    const [from, to] = [(reads[i] as Access).buffer, (writes[i] as Access).buffer];
    const link = linkStream[(poolOf[from] as number) * numPools + (poolOf[to] as number)] as number;
    if (link < 0 || input.streams[link] !== stream) return wrongLink(bufferAt(context, from), bufferAt(context, to), stream, link, context);
    const problem = pairProblem(reads[i] as Access, writes[i] as Access, true, context);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function wrongLink(from: Buffer, to: Buffer, stream: string, link: number, { input }: Context): string {
  if (from.pool === to.pool) return `copies ${from.name} to ${to.name}, and both are in ${from.pool}`;
  if (link < 0) return `copies from ${from.pool} to ${to.pool}, and no link leads there`;
  return `runs on ${stream}, the link from ${from.pool} to ${to.pool} on ${input.streams[link]}`;
}

function castProblem({ reads, writes }: Op, context: Context): string | undefined {
  for (let i = 0; i < reads.length; i++) {
    const problem = pairProblem(reads[i] as Access, writes[i] as Access, false, context);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** The same rows of the same inner shape, and of the same dtype where bytes are copied. */
function pairProblem(read: Access, write: Access, sameDtype: boolean, context: Context): string | undefined {
  const [from, to] = [bufferAt(context, read.buffer), bufferAt(context, write.buffer)];
  const [numRead, numWritten] = [length(read.rows), length(write.rows)];
  if (numRead !== numWritten) return `reads ${numRead} rows of ${from.name} and writes ${numWritten} of ${to.name}`;
  if (sameDtype && from.blockRows !== to.blockRows) return `copies ${from.name} to ${to.name}, which have their heads in other places`;
  if (sameDtype && from.dtype !== to.dtype) return `copies ${from.dtype} of ${from.name} into ${to.dtype} of ${to.name}`;
  const [width, expected] = [rowElements(from, context), rowElements(to, context)];
  return width === expected ? undefined : `reads rows of ${width} elements of ${from.name} and writes rows of ${expected} of ${to.name}`;
}

function rowElements({ id, dtype }: Buffer, { rowBytes }: Context): number {
  return (rowBytes[id] as number) / DTYPE_BYTES[dtype];
}

/** loadBatch fills the tables in their order. */
function tablesProblem({ kind, writes }: Op, { input: { tables } }: Context): string | undefined {
  if (kind !== 'loadBatch') return undefined;
  const fits = ({ buffer, capacity }: (typeof tables)[number], i: number): boolean =>
    writes[i]?.buffer === buffer && writes[i].rows.start === 0 && writes[i].rows.end === capacity && writes[i].param < 0;
  return writes.length === tables.length && tables.every(fits)
    ? undefined
    : `must fill the tables ${tables.map(({ name }) => name).join(', ')}`;
}
