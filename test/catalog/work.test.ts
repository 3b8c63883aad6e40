import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parameterTable } from '../../src/catalog/index.js';
import { type MaskShape, maskPairs, type OpKind, type OpShape, type OpSizes, opWork } from '../../src/catalog/ops/index.js';
import { parallelLayout } from '../../src/spec/parallelLayout.js';
import type { ModelSpec } from '../../src/spec/types.js';
import { specs } from '../spec/inputs.js';
import { BUFFERS, sampleOp, sampleSizes, tiles } from './opSamples.js';

interface Range {
  readonly start: number;
  readonly end: number;
}

function countPairs(mask: MaskShape, query: Range, key: Range): number {
  let pairs = 0;
  for (let q = query.start; q < query.end; q++) {
    for (let k = key.start; k < key.end; k++) {
      if (mask.kind === 'full' || (k <= q && (mask.kind === 'causal' || q - k < mask.window))) pairs += 1;
    }
  }
  return pairs;
}

test('pairs are those that a mask leaves', () => {
  const range = fc.tuple(fc.nat(20), fc.nat(20)).map(([start, length]) => ({ start, end: start + length }));
  const mask = fc.oneof(
    fc.constant<MaskShape>({ kind: 'full' }),
    fc.constant<MaskShape>({ kind: 'causal' }),
    fc.integer({ min: 1, max: 45 }).map((window): MaskShape => ({ kind: 'window', window })),
  );
  fc.assert(
    fc.property(mask, range, range, (one, query, key) => {
      expect(maskPairs(one, query, key)).toBe(countPairs(one, query, key));
    }),
    { numRuns: 2000 },
  );
});

test('pairs of 15M tokens are exact', () => {
  const whole = { start: 0, end: 15 * 2 ** 20 };
  expect(maskPairs({ kind: 'causal' }, whole, whole)).toBe(Number((BigInt(whole.end) * BigInt(whole.end + 1)) / 2n));
});

const sizes = sampleSizes({ ranks: 4 });
/** Eight query heads on three ranks: three on each, one of them padding. */
const UNEVEN = parallelLayout({ numHeads: 8, numKvHeads: 4 }, { sequenceParallelSize: 3, dataParallelSize: 1 }, 3);
const work = (kind: OpKind, rows: number, count?: number) =>
  opWork(sampleOp(kind, rows), count === undefined ? undefined : tiles(count), BUFFERS, sizes);

describe('FLOPs', () => {
  test('of a layer are 2 per weight and row, with two gradients in backward, and again for what those are made of', () => {
    const matrices = (parameterTable(specs().model).layers[0]?.weights ?? []).filter(({ shape }) => shape.length === 2);
    const weights = (names: RegExp): number => matrices.reduce((sum, { name, numel }) => sum + (names.test(name) ? numel : 0), 0);
    const flops = (kind: OpKind): number => work(kind, 10).matmulFlops;
    expect(flops('pre')).toBe(2 * 10 * weights(/[qkv]_proj/));
    expect(flops('post')).toBe(2 * 10 * weights(/o_proj|mlp/));
    expect(flops('preQ') + flops('preKv')).toBe(flops('pre'));
    expect(flops('preBwd')).toBe(2 * flops('pre'));
    // All but the last product, whose result nothing in reverse reads.
    expect(flops('postBwd')).toBe(3 * flops('post') - 2 * 10 * weights(/down_proj/));
    expect(flops('loss')).toBe(3 * 2 * 10 * 64 * 128);
    expect(flops('copy')).toBe(0);
  });

  test('of attention are shared by the sequence parallel ranks, by the heads that each holds', () => {
    const { attentionForwardFlops, matmulFlops } = work('attn', 10);
    expect([attentionForwardFlops, matmulFlops]).toEqual([4 * 55 * (8 / 4) * 8, 0]);
    expect(work('attnBwd', 10).attentionBackwardFlops).toBe(2.5 * attentionForwardFlops);
    const padded = opWork(sampleOp('attn', 10), undefined, BUFFERS, sampleSizes({ layout: UNEVEN }));
    expect(padded.attentionForwardFlops).toBe(4 * 55 * 3 * 8);
  });

  test('of attention follow the mask', () => {
    const op = sampleOp('attn', 10, { tokens: { start: 20, end: 30 }, kv: { start: 0, end: 30 } });
    const flops = (mask: MaskShape): number => opWork(op, { mask }, BUFFERS, sizes).attentionForwardFlops / (4 * (8 / 4) * 8);
    expect(flops({ kind: 'full' })).toBe(300);
    expect(flops({ kind: 'causal' })).toBe(200 + 55);
    expect(flops({ kind: 'window', window: 5 })).toBe(50);
  });

  test('of kinds of layers are their mean', () => {
    const [narrow, wide] = [specs().model, specs({ model: { intermediate_size: 960 } }).model];
    const classes = [...narrow.code.classes, ...wide.code.classes];
    const mixed = { ...narrow, code: { ...narrow.code, classes, classOf: [0, 1, 0, 0] } };
    const flops = (model: ModelSpec): number => opWork(sampleOp('post', 10), undefined, BUFFERS, sampleSizes({ model })).matmulFlops;
    expect(flops(mixed)).toBe((3 * flops(narrow) + flops(wide)) / 4);
  });

  test('do not depend on tiles', () => {
    expect(work('postBwd', 10, 3).matmulFlops).toBe(work('postBwd', 10).matmulFlops);
  });
});

describe('bytes of element-wise kernels', () => {
  const rowBytes = 4 * 64;
  const view = { buffer: 0, rows: { start: 0, end: 10 } };
  /** The gradient of a norm's weight is added to its region, once for each tile. */
  const NORM = 12 * 64;

  test('of moves are what is read and what is written', () => {
    const bytes = (kind: OpKind, more: object): number => opWork(sampleOp(kind, 10, more), undefined, BUFFERS, sizes).elementBytes;
    expect(bytes('zero', { reads: [], writes: [view] })).toBe(10 * rowBytes);
    expect(bytes('cast', { writes: [view] })).toBe(2 * 10 * rowBytes);
    expect(bytes('toHeads', { writes: [view] })).toBe(2 * 10 * rowBytes);
    expect(bytes('copy', { writes: [view] })).toBe(0);
  });

  test('of code are those of its rows; its weights count for each product, and once more for each tile', () => {
    const products = 64 * 64 + 2 * 64 * 32;
    expect(work('pre', 30).weightBytes).toBe(4 * products);
    expect(work('preBwd', 30, 3).weightBytes).toBe(3 * 2 * 4 * products);
    expect(work('preBwd', 30, 3).elementBytes).toBe(work('preBwd', 30).elementBytes + 2 * NORM);
    expect(work('preBwd', 60).elementBytes).toBe(2 * work('preBwd', 30).elementBytes - NORM);
    expect(work('loss', 30, 3).weightBytes).toBe(3 * 3 * 4 * 64 * 128);
  });

  test('of half a dtype the product of a gradient is added to fp32', () => {
    const half = sampleSizes({ ranks: 4, dtype: 'bfloat16' });
    const bytes = (kind: OpKind, rows: number): number => opWork(sampleOp(kind, rows), undefined, BUFFERS, half).elementBytes;
    const constant = 2 * bytes('preBwd', 30) - bytes('preBwd', 60);
    expect(constant).toBe((2 + 8) * (64 * 64 + 2 * 64 * 32) + NORM);
    expect(2 * bytes('loss', 30) - bytes('loss', 60)).toBe((2 + 8) * 64 * 128 + NORM);
  });

  test('of attention are its copies and sums; scores that are written out too', () => {
    const kernels = { attn: 'reference', attnBwd: 'reference' };
    const bytes = (kind: OpKind, rows: number, of = sizes): number => opWork(sampleOp(kind, rows), undefined, BUFFERS, of).elementBytes;
    expect(bytes('attn', 10)).toBe(10 * (2 * 4 * 16 + 8 * 2));
    expect(bytes('attnBwd', 10)).toBe(12 * 10 * (16 + 2 * 8));
    const inPlace = sampleSizes({ ranks: 4, device: 'cuda', kernels: { attn: 'flash2', attnBwd: 'flash2' } });
    expect(bytes('attn', 10, inPlace)).toBe(8 * 10 * 2);
    expect(bytes('attn', 10, sampleSizes({ ranks: 4, kernels })) - bytes('attn', 10)).toBe(14 * 4 * 10 * 10 * 2);
  });
});

test('kernels: a pair of an exchange takes a copy and a message, padded and copied heads several copies; a tiled op launches for each tile', () => {
  const access = { buffer: 0, rows: { start: 0, end: 8 } };
  const kernels = (op: OpShape, of: OpSizes): number => opWork(op, undefined, BUFFERS, of).kernels;
  const exchange = sampleOp('toHeads', 8, { reads: [access, access, access], writes: [access, access, access] });
  expect(kernels(exchange, sizes)).toBe(3 * 2);
  expect(kernels(exchange, sampleSizes())).toBe(3);
  const uneven = sampleSizes({ layout: UNEVEN });
  const { packed, unpacked } = uneven.copies.query();
  expect([packed, unpacked]).toEqual([3, 2]);
  expect(kernels(exchange, uneven)).toBe(3 * (packed + 1));
  expect(kernels({ ...exchange, kind: 'toSequence' }, uneven)).toBe(3 * (unpacked + 1));
  expect(work('post', 8, 4).kernels).toBe(4 * work('post', 8).kernels);
});
