/** Streams, pools, links, buffers, attributes and tables: what sections stand on. Without it nothing else can be looked up. */
import { bufferRange } from '../address/bytes.js';
import type { Buffer } from '../schedule/buffer.js';
import type { Attribute, HeadGroup } from '../schedule/op.js';
import type { Table } from '../schedule/program.js';
import { DTYPE_BYTES } from '../spec/dtype.js';
import { FILE_ALIGNMENT_BYTES } from '../spec/pools.js';
import { isCount, repeated } from './checks.js';
import type { Context } from './context.js';

/** Entry masks are 32-bit numbers with a bit a stream. */
const MAX_STREAMS = 31;

type Report = (text: string, problem: string) => void;

export function checkFrame(context: Context): void {
  const { input, violations } = context;
  const report: Report = (text, problem) => violations.add({ section: 'plan', text, problem });
  checkStreams(context, report);
  checkPools(context, report);
  for (const [id, buffer] of input.buffers.entries()) checkBuffer(id, buffer, context, report);
  for (const [number, attribute] of input.attributes.entries()) checkAttribute(`attribute ${number}`, attribute, report);
  for (const table of input.tables) checkTable(table, context, report);
  for (const name of repeated(input.tables.map((one) => one.name))) report(name, 'is the name of several tables');
  for (const name of repeated(input.sections.map((one) => one.name))) report(name, 'is the name of several sections');
}

function checkStreams({ input: { streams, links, pools } }: Context, report: Report): void {
  if (streams[0] !== 'compute') report(streams.join(' '), 'the first stream must be compute');
  if (streams.length > MAX_STREAMS) report(streams.join(' '), `${streams.length} streams, and masks hold ${MAX_STREAMS}`);
  for (const name of repeated(streams)) report(name, 'is the name of several streams');
  for (const { from, to, stream } of links) {
    const text = `link ${from} -> ${to}`;
    if (!streams.includes(stream)) report(text, `is queued on ${stream}, which is not a stream`);
    for (const end of [from, to]) if (!pools.some(({ name }) => name === end)) report(text, `names ${end}, which is not a pool`);
    if (from === to) report(text, 'leads from a pool to itself');
  }
  for (const name of repeated(links.map(({ from, to }) => `link ${from} -> ${to}`))) report(name, 'is there twice');
}

function checkPools({ input: { pools } }: Context, report: Report): void {
  for (const name of repeated(pools.map((one) => one.name))) report(name, 'is the name of several pools');
  const devices = pools.filter(({ kind }) => kind === 'device');
  if (devices.length !== 1) report(pools.map(({ name }) => name).join(' '), `${devices.length} pools are a device, expected one`);
  for (const { name, bytes } of pools) if (!isCount(bytes)) report(name, `has ${bytes} bytes`);
}

function checkBuffer(id: number, buffer: Buffer, context: Context, report: Report): void {
  const problem = (text: string): void => report(buffer.name, text);
  const pool = context.input.pools.find(({ name }) => name === buffer.pool);
  if (buffer.id !== id) problem(`has id ${buffer.id} at position ${id}`);
  if (buffer.scope !== 'call' && buffer.scope !== 'step') problem(`has scope ${String(buffer.scope)}`);
  if (!buffer.shape.every((size) => isCount(size) && size > 0) || buffer.shape.length === 0)
    problem(`has shape [${buffer.shape.join(', ')}]`);
  else checkStrides(buffer, problem);
  if (!(isCount(buffer.instances) && buffer.instances > 0)) problem(`has ${buffer.instances} instances`);
  const bytes = (buffer.shape[0] ?? 0) * (context.rowBytes[id] ?? 0);
  if (!(isCount(buffer.instanceBytes) && buffer.instanceBytes >= bytes))
    problem(`has instances of ${bytes} bytes ${buffer.instanceBytes} apart`);
  if (pool === undefined) problem(`is in ${buffer.pool}, which is not a pool`);
  else checkAddress(buffer, pool.kind === 'file' ? FILE_ALIGNMENT_BYTES : DTYPE_BYTES[buffer.dtype], pool.bytes, problem);
}

function checkAddress(buffer: Buffer, alignment: number, arenaBytes: number, problem: (text: string) => void): void {
  const { start, end } = bufferRange(buffer);
  if (!(isCount(start) && end <= arenaBytes)) problem(`is at bytes ${start}..${end} of the ${arenaBytes} of ${buffer.pool}`);
  if (start % alignment !== 0 || buffer.instanceBytes % alignment !== 0)
    problem(`is at byte ${start}, its instances ${buffer.instanceBytes} apart: not multiples of ${alignment}`);
}

function checkStrides(buffer: Buffer, problem: (text: string) => void): void {
  const { shape, strides, blockRows } = buffer;
  const found = `has strides [${strides.join(', ')}]`;
  if (blockRows === undefined) {
    if (!isRowMajor(buffer)) problem(`${found}, which are not those of rows one after the other`);
    return;
  }
  if (shape.length !== 2 || strides.length !== 2 || strides[0] !== 1 || strides[1] !== blockRows)
    problem(`${found}, which are not those of blocks of ${blockRows} rows with heads first`);
  if (!isCount(blockRows) || blockRows === 0 || (shape[0] ?? 0) % blockRows !== 0)
    problem(`has ${shape[0] ?? 0} rows in blocks of ${blockRows}`);
}

function isRowMajor({ shape, strides }: Buffer): boolean {
  let expected = 1;
  for (let dim = shape.length - 1; dim >= 0; dim--) {
    if (strides[dim] !== expected) return false;
    expected *= shape[dim] ?? 1;
  }
  return strides.length === shape.length;
}

function checkAttribute(text: string, { mask, tiles, heads }: Attribute, report: Report): void {
  if (heads !== undefined && !areHeads(heads)) report(text, `has group ${heads.group ?? 'all'} of ${heads.groups} groups of heads`);
  if (tiles !== undefined && !(isCount(tiles) && tiles > 0)) report(text, `has ${tiles} tiles`);
  if (mask === undefined) return;
  if (!['full', 'causal', 'window'].includes(mask.kind)) report(text, `has the mask ${mask.kind}, which is not known`);
  if (mask.kind === 'window' && !(isCount(mask.window) && mask.window > 0)) report(text, `has a window of ${mask.window} tokens`);
}

function areHeads({ groups, group = 0 }: HeadGroup): boolean {
  return isCount(groups) && groups > 1 && isCount(group) && group < groups;
}

function checkTable({ name, dtype, capacity, buffer: id }: Table, { input, poolOf, device }: Context, report: Report): void {
  const buffer = input.buffers[id];
  if (buffer === undefined) {
    report(name, `is filled into buffer ${id}, and there are ${input.buffers.length}`);
    return;
  }
  if (buffer.dtype !== dtype) report(name, `holds ${dtype}, its buffer ${buffer.name} ${buffer.dtype}`);
  if (!(isCount(capacity) && capacity <= (buffer.shape[0] ?? 0))) report(name, `has ${capacity} rows, its buffer ${buffer.shape[0] ?? 0}`);
  if (buffer.scope !== 'step' || poolOf[id] !== device) report(name, `its buffer ${buffer.name} must last the micro-step, on the device`);
}
