import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parameterTable } from '../../src/catalog/index.js';
import { type MaskShape, maskPairs, numKernels, type OpKind, opWork } from '../../src/catalog/ops/index.js';
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

describe('bytes', () => {
  test('are at least those of the views and weights', () => {
    const op = sampleOp('zero', 10, { reads: [], writes: [{ buffer: 0, rows: { start: 0, end: 10 } }] });
    expect(opWork(op, undefined, BUFFERS, sizes).hbmBytes).toBe(10 * 64 * 4);
    expect(work('post', 10).hbmBytes).toBeGreaterThan(4 * (10 * 3 * 64 + 64 * 64 + 64 + 3 * 64 * 96));
  });

  test('of tiles: views once, weights and the gradient region once for each tile', () => {
    const view = { buffer: 0, rows: { start: 0, end: 30 } };
    const region = { buffer: 1, rows: { start: 0, end: 1000 } };
    const op = sampleOp('loss', 30, { reads: [view], accumulates: [view, region] });
    const bytes = (count: number): number => opWork(op, tiles(count), BUFFERS, sizes).hbmBytes;
    const perTile = 4 * (2 * 1000 + 2 * 128 * 64);
    const once = 4 * 3 * 30 * 64;
    expect(bytes(1)).toBeGreaterThan(once + perTile);
    expect(bytes(3) - bytes(1)).toBe(2 * perTile);
  });

  test("of code in tiles: rows once, each tile its weights, and their gradients' place in fp32, read and written", () => {
    const products = 64 * 64 + 2 * 64 * 32;
    const perTile = 4 * (products + 64 + 64) + 8 * (products + 64);
    expect(work('preBwd', 30, 3).hbmBytes - work('preBwd', 30).hbmBytes).toBe(2 * perTile);
    // Of each row x for the norm, its result and x again for its reverse, the gradients of q, k, v and x: more than the views.
    expect(work('preBwd', 30).hbmBytes - perTile).toBeGreaterThan(4 * 30 * (2 * 64 + 64 + 2 * 32));
    expect(work('preBwd', 60).hbmBytes - work('preBwd', 30).hbmBytes).toBe(work('preBwd', 30).hbmBytes - perTile);
  });
});

test('kernels: a pair of an exchange takes a copy and a message, copies of heads a copy for each rank; a tiled op launches for each tile', () => {
  const access = { buffer: 0, rows: { start: 0, end: 8 } };
  const exchange = sampleOp('toHeads', 8, { reads: [access, access, access], writes: [access, access, access] });
  expect(numKernels(exchange, undefined, BUFFERS, sizes)).toBe(3 * 2);
  expect(numKernels(exchange, undefined, BUFFERS, sampleSizes())).toBe(3);
  expect(numKernels(exchange, undefined, BUFFERS, sampleSizes({ layout: UNEVEN }))).toBe(3 * (3 + 1));
  expect(numKernels(sampleOp('post', 8), tiles(4), BUFFERS, sizes)).toBe(4 * numKernels(sampleOp('post', 8), undefined, BUFFERS, sizes));
});
