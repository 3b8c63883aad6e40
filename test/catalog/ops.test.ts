/** The op table against the contract that the worker holds too: kinds, streams and view names. */
import { describe, expect, test } from 'vitest';
import { drawOp, OP_KIND_NAMES, OP_ROWS, type OpRow, rowBytes, viewBytes } from '../../src/catalog/ops/index.js';
import { BUFFERS, sampleOp } from './opSamples.js';

const TABLE = `
loadBatch compute -> many
embed compute tokenIds positions -> x
zero compute -> many
pre compute x positions -> q k v
preQ compute x positions -> q
preKv compute x positions -> k v
toHeads comm many -> many
toSequence comm many -> many
attn compute q k v -> o lse
mergeFirst compute oPart lsePart -> oAcc lse
merge compute oPart lsePart -> ; oAcc lse
cast compute many -> many
post compute x o -> y
postKeep compute x o -> y kept
postBwd compute x o -> do; dx wgrad
postBwdKept compute x o kept -> do; dx wgrad
attnBwd compute q k v o lse do -> ; dq dk dv
preBwd compute x positions dq dk dv -> ; dx wgrad
loss compute x labels -> dx; lossSum wgrad wgradLmHead
lossWeighted compute x labels weights -> dx; lossSum wgrad wgradLmHead
lossOnly compute x labels -> ; lossSum
rescale compute -> ; many
embedBwd compute dx tokenIds positions -> ; wgrad
emitGrads compute wgrad ->
copy link many -> many
gather comm ->
release comm ->
reduce comm ->
optimizerStep compute ->`;

test('kinds, streams and views are those of the contract', () => {
  const names = (views: OpRow['reads']): string => (views === 'many' ? views : views.join(' '));
  const lines = OP_KIND_NAMES.map((kind) => {
    const { stream, reads, writes, accumulates }: OpRow = OP_ROWS[kind];
    const more = accumulates.length === 0 ? '' : `; ${names(accumulates)}`;
    return `${[kind, stream, names(reads), '->', names(writes)].filter((word) => word !== '').join(' ')}${more === '' ? '' : writes.length === 0 ? ` ${more}` : more}`;
  });
  expect(lines).toEqual(TABLE.trim().split('\n'));
});

test('rows are consistent: pairs read and write many, external ops have no views, what is not deterministic says why', () => {
  for (const kind of OP_KIND_NAMES) {
    const row: OpRow = OP_ROWS[kind];
    if (row.pairs) expect([row.reads, row.writes], kind).toEqual(['many', 'many']);
    if (row.external) expect([row.reads, row.writes, row.accumulates], kind).toEqual([[], [], []]);
    if (!row.deterministic) expect(row.whyNot, kind).not.toBe('');
    expect(row.roughly, kind).not.toBe('');
  }
  expect(OP_KIND_NAMES.filter((kind) => !OP_ROWS[kind].deterministic)).toEqual(['attnBwd', 'embedBwd']);
});

test('row and view bytes', () => {
  expect(rowBytes({ dtype: 'bfloat16', shape: [10, 3, 4] })).toBe(24);
  expect(rowBytes({ dtype: 'int64', shape: [10] })).toBe(8);
  expect(
    viewBytes(
      [
        { buffer: 0, rows: { start: 2, end: 5 } },
        { buffer: 1, rows: { start: 0, end: 1 } },
      ],
      BUFFERS,
    ),
  ).toBe(3 * 256 + 4);
  expect(() => viewBytes([{ buffer: 9, rows: { start: 0, end: 1 } }], BUFFERS)).toThrow(/no buffer 9/);
});

describe('drawing', () => {
  const names = ['k', 'k.staged'];
  test('attention by chunks of queries and of keys', () => {
    const op = sampleOp('attn', 8, { tokens: { start: 16, end: 24 }, kv: { start: 0, end: 16 } });
    expect(drawOp(op, 8, names)).toBe('attn q2 k0-1');
    expect(drawOp({ ...op, kv: { start: 3, end: 16 } }, 8, names)).toBe('attn q2 k[3:16)');
  });

  test('copies by the tensor, whichever side it is on; others by chunk', () => {
    const tensor = { buffer: 0, rows: { start: 24, end: 32 } };
    const ring = { buffer: 1, rows: { start: 0, end: 8 } };
    expect(drawOp(sampleOp('copy', 8, { reads: [tensor], writes: [ring] }), 8, names)).toBe('copy k3');
    expect(drawOp(sampleOp('copy', 8, { reads: [ring], writes: [tensor] }), 8, names)).toBe('copy k3');
    expect(drawOp(sampleOp('post', 8), 8, names)).toBe('post 0');
    expect(drawOp(sampleOp('gather', 8), 8, names)).toBe('gather');
  });
});
