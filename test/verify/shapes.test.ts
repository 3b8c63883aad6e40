/** What the verifier says of pools, ops and sections on their own. */
import { describe } from 'vitest';
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Op } from '../../src/schedule/op.js';
import { withAccess, withBuffer, withLine, withOp, withoutOp } from './bend.js';
import { findsAll, type Rule } from './rules.js';

const FRAME: readonly Rule[] = [
  ['compute is not the first stream', (plan) => ({ ...plan, streams: plan.streams.toReversed() }), /the first stream must be compute/],
  [
    'a link on no stream',
    (plan) => ({ ...plan, links: plan.links.map((link) => ({ ...link, stream: 'pcie' })) }),
    /queued on pcie, which is not a stream/,
  ],
  ['two devices', (plan) => ({ ...plan, pools: plan.pools.map((pool) => ({ ...pool, kind: 'device' })) }), /3 pools are a device/],
  ['a buffer of no pool', (plan) => withBuffer(plan, 'q', { pool: 'l2' }), /is in l2, which is not a pool/],
  ['a buffer without an address', (plan) => withBuffer(plan, 'q', { offset: -1 }), /is at bytes -1\.\.63/],
  [
    'a buffer beyond its arena',
    (plan) => withBuffer(plan, 'o.saved', { offset: 40960 }),
    /is at bytes 40960\.\.65536 of the 49152 of disk/,
  ],
  ['a file buffer off its alignment', (plan) => withBuffer(plan, 'lse.saved', { instanceBytes: 512 }), /not multiples of 4096/],
  ['instances that overlap', (plan) => withBuffer(plan, 'x@host', { instanceBytes: 56 }), /has instances of 64 bytes 56 apart/],
  ['strides of something else', (plan) => withBuffer(plan, 'q', { strides: [1, 8, 4] }), /has strides \[1, 8, 4\]/],
  [
    'blocks with other strides',
    (plan) => withBuffer(plan, 'lseAcc', { strides: [1, 8] }),
    /has strides \[1, 8\], which are not those of blocks of 4 rows with heads first/,
  ],
  ['rows that are not whole blocks', (plan) => withBuffer(plan, 'lseAcc', { strides: [1, 3], blockRows: 3 }), /has 8 rows in blocks of 3/],
  [
    'a table larger than its buffer',
    (plan) => ({ ...plan, tables: plan.tables.map((table) => ({ ...table, capacity: 9 })) }),
    /has 9 rows, its buffer 8/,
  ],
  [
    'a window of nothing',
    (plan) => ({ ...plan, attributes: [...plan.attributes, { mask: { kind: 'window', window: 0 } }] }),
    /has a window of 0/,
  ],
];

const SHAPES: readonly Rule[] = [
  [
    'a view too few',
    (plan) => withOp(plan, 'layerForward', 'attn', (op) => ({ ...op, reads: op.reads.slice(1) })),
    /reads 2 views, its kind 3 \(q, k, v\)/,
  ],
  [
    'a pair without its half',
    (plan) => withOp(plan, 'layerForward', 'toHeads', (op) => ({ ...op, reads: op.reads.slice(1) })),
    /reads 2 views but writes 3/,
  ],
  [
    'a part of a block',
    (plan) => withBuffer(plan, 'lse.hbm', { strides: [1, 8], blockRows: 8 }),
    /lse\.hbm\[0:4\) is not one block of 8 rows of lse\.hbm/,
  ],
  [
    'a copy of blocks into rows',
    (plan) => {
      const { blockRows: _, ...rows } = plan.buffers.find(({ name }) => name === 'lse.saved') as Buffer;
      return { ...plan, buffers: plan.buffers.map((one) => (one.name === 'lse.saved' ? { ...rows, strides: [1, 1] } : one)) };
    },
    /copies lse\.host to lse\.saved, which have their heads in other places/,
  ],
  ['an id out of place', (plan) => withOp(plan, 'layerForward', 'pre', (op) => ({ ...op, id: 7 })), /has id 7 at position 1/],
  [
    'an unknown kind',
    (plan) => withOp(plan, 'layerForward', 'pre', (op) => ({ ...op, kind: 'think' as 'pre' })),
    /kind think is not in the op table/,
  ],
  [
    'the wrong stream',
    (plan) => withOp(plan, 'layerForward', 'pre', (op) => ({ ...op, stream: 'comm' })),
    /runs on comm, its kind on compute/,
  ],
  [
    'a copy on the other direction',
    (plan) => withOp(plan, 'layerForward', 'copy', (op) => ({ ...op, stream: 'd2h' })),
    /runs on d2h, the link from host to hbm on h2d/,
  ],
  [
    'a copy inside a pool',
    (plan) => withAccess(plan, 'layerForward', 'copy', 'reads', 0, { buffer: 'y.hbm', param: -1 }),
    /both are in hbm/,
  ],
  [
    'a copy where no link leads',
    (plan) => withAccess(plan, 'layerRebuild', 'copy', 'writes', 0, { buffer: 'o.hbm' }),
    /copies from disk to hbm, and no link/,
  ],
  [
    'a copy of other rows',
    (plan) => withAccess(plan, 'layerForward', 'copy', 'reads', 0, { rows: { start: 0, end: 2 } }),
    /reads 2 rows of x@host and writes 4/,
  ],
  [
    'compute on the host',
    (plan) => withAccess(plan, 'layerForward', 'pre', 'reads', 0, { buffer: 'x@host', param: 0 }),
    /in host, and only copies leave the device/,
  ],
  [
    'a wait for a later op',
    (plan) => withOp(plan, 'layerForward', 'toHeads', (op) => ({ ...op, waits: [op.id] })),
    /waits for op 2, which is not an earlier op/,
  ],
  [
    'a view outside its buffer',
    (plan) => withAccess(plan, 'layerForward', 'post', 'writes', 0, { rows: { start: 6, end: 10 } }),
    /y\.hbm\[6:10\) is outside the 8 rows/,
  ],
  [
    'a parameter that is not there',
    (plan) => withAccess(plan, 'layerForward', 'copy', 'reads', 0, { param: 3 }),
    /names parameter 3, and layerForward has 3/,
  ],
  [
    'an instance that is not there',
    (plan) => withAccess(plan, 'layerForward', 'pre', 'writes', 0, { index: 1 }),
    /names instance 1 of the 1 of qLocal/,
  ],
  [
    'an attribute that is not there',
    (plan) => withOp(plan, 'layerForward', 'post', (op) => ({ ...op, attribute: 9 })),
    /names attribute 9, and there are 4/,
  ],
  [
    'tiles where there are none',
    (plan) => withOp(plan, 'layerForward', 'cast', (op) => ({ ...op, attribute: 3 })),
    /works in tiles, which its kind cannot/,
  ],
  ['attention without a mask', (plan) => withOp(plan, 'layerForward', 'attn', withoutAttribute), /has no mask/],
  [
    'a causal mask over the past',
    (plan) => withOp(plan, 'layerForward', 'attn', (op) => ({ ...op, attribute: 0 }), 2),
    /behind a causal mask, which wants keys that begin no later and end with them/,
  ],
  [
    'no mask over the present',
    (plan) => withOp(plan, 'layerForward', 'attn', (op) => ({ ...op, attribute: 1 })),
    /sees all keys 0\.\.4 of queries 0\.\.4, some of which come after/,
  ],
  [
    'a window over the future',
    (plan) => withOp(plan, 'layerForward', 'attn', (op) => ({ ...op, attribute: 2, kv: { start: 4, end: 8 } })),
    /keys 4\.\.8 of queries 0\.\.4 behind a window, some of which come after/,
  ],
  [
    'keys of another number',
    (plan) => withAccess(plan, 'layerForward', 'attn', 'reads', 1, { rows: { start: 0, end: 2 } }),
    /works on 4 keys, and one of their views has 2 rows/,
  ],
  [
    'queries of another number',
    (plan) => withAccess(plan, 'layerForward', 'attn', 'writes', 0, { rows: { start: 0, end: 2 } }),
    /works on 4 queries, and one of their views has 2/,
  ],
  [
    'gradients at another place of the region',
    (plan) => withAccess(plan, 'layerBackward', 'postBwd', 'accumulates', 1, { rows: { start: 3, end: 5 } }),
    /elements 3\.\.5 of its region, expected 0\.\.5/,
  ],
  [
    'gradients in a region of another kind of layers',
    (plan) => ({ ...plan, parameters: { ...plan.parameters, layers: [{ numElements: 5 }, { numElements: 4 }] }, classOf: [0, 1, 0] }),
    /adds gradients to elements 0\.\.5 of its region, expected 0\.\.4/,
  ],
  [
    'gradients of an embedding that does not train',
    (plan) => ({ ...plan, parameters: { ...plan.parameters, embed: [{ trainable: false }] } }),
    /has embedBwd in 1 calls, expected none/,
  ],
  [
    'tables in another order',
    (plan) => withOp(plan, 'embedForward', 'loadBatch', (op) => ({ ...op, writes: op.writes.toReversed() })),
    /must fill the tables tokenIds, positions, labels/,
  ],
];

const COVERAGE: readonly Rule[] = [
  [
    'keys that nothing attends to',
    (plan) => withoutOp(withoutOp(plan, 'layerForward', 'attn', 2), 'layerForward', 'merge'),
    /no attn of queries 4\.\.8 attends to keys 0\.\.4/,
  ],
  [
    'keys attended to twice',
    (plan) => withLine(plan, 'layerBackward', 'attnBwd', (line) => `${line}\n${line}`),
    /attends again to keys 0\.\.8 of queries 4\.\.8/,
  ],
  ['queries that nothing attends for', (plan) => withoutOp(plan, 'layerBackward', 'attnBwd', 1), /no attnBwd works on tokens 0\.\.4/],
  [
    'a partial result that is not merged',
    (plan) => withoutOp(plan, 'layerForward', 'merge'),
    /2 partial results of queries 4\.\.8 are merged 0 times/,
  ],
  ['a window in a layer without', (plan) => ({ ...plan, windows: [3, 3, 3] }), /sees keys that lie 3 before a query, and the window is 3/],
  ['a chunk without gradients', (plan) => withoutOp(plan, 'layerBackward', 'preBwd', 1), /no preBwd works on tokens 0\.\.4/],
  [
    'a chunk with gradients twice',
    (plan) => withLine(plan, 'layerBackward', 'postBwd', (line) => `${line}\n${line}`),
    /works on tokens that op \d+ has worked on/,
  ],
];

describe('of pools, buffers and tables, verifySchedule', () => findsAll(FRAME));
describe('of ops, verifySchedule', () => findsAll(SHAPES));
describe('of what a section works on, verifySchedule', () => findsAll(COVERAGE));

function withoutAttribute(op: Op): Op {
  const { attribute, ...rest } = op;
  return attribute === undefined ? op : rest;
}
