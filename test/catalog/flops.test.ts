import fc from 'fast-check';
import { expect, test } from 'vitest';
import { causalPairs, opBytes, opFlops, parameterTable } from '../../src/catalog/index.js';
import type { OpShape } from '../../src/catalog/opShape.js';
import { specs } from '../spec/inputs.js';

function countPairs(query: { start: number; end: number }, key: { start: number; end: number }): number {
  let pairs = 0;
  for (let q = query.start; q < query.end; q++) for (let k = key.start; k < key.end; k++) pairs += k <= q ? 1 : 0;
  return pairs;
}

test('causal pairs are those that a mask leaves', () => {
  const range = fc.tuple(fc.nat(20), fc.nat(20)).map(([start, length]) => ({ start, end: start + length }));
  fc.assert(
    fc.property(range, range, (query, key) => {
      expect(causalPairs(query, key)).toBe(countPairs(query, key));
    }),
  );
});

const op = (kind: string, rows: number, tokens = rows): OpShape => ({
  kind,
  tokens: { start: 0, end: tokens },
  reads: [{ buffer: 0, rows: { start: 0, end: rows } }],
  writes: [],
  accumulates: [],
});

test('FLOPs of a layer are 2 per weight and row, and rerun with two gradients in backward', () => {
  const { model, run } = specs();
  const weights = parameterTable(model)
    .layer.filter(({ shape }) => shape.length === 2)
    .reduce((sum, { numel }) => sum + numel, 0);
  const flops = (kind: string): number => opFlops(op(kind, 10), model, run).matmulFlops;
  expect(flops('pre') + flops('post')).toBe(2 * 10 * weights);
  expect(flops('preQ') + flops('preKv')).toBe(flops('pre'));
  expect(flops('preBwd') + flops('postBwd')).toBe(3 * 2 * 10 * weights);
  expect(flops('loss')).toBe(3 * 2 * 10 * 64 * 128);
  expect(flops('fetch')).toBe(0);
});

test('attention is shared by the sequence parallel ranks', () => {
  const { model, run } = specs();
  const { attentionForwardFlops, matmulFlops } = opFlops(op('attn', 10), model, run);
  expect([attentionForwardFlops, matmulFlops]).toEqual([4 * 55 * (8 / 4) * 8, 0]);
  expect(opFlops(op('attnBwd', 10), model, run).attentionBackwardFlops).toBe(2.5 * attentionForwardFlops);
});

test('bytes are at least those of the views', () => {
  const { model, run } = specs();
  const buffers = [{ id: 0, dtype: 'float32', shape: [100, 64] }] as const;
  const bytes = (kind: string): number => opBytes({ ...op(kind, 10), scratchBytes: 0 }, model, run, parameterTable(model), buffers);
  expect(bytes('zero')).toBe(10 * 64 * 4);
  expect(bytes('post')).toBeGreaterThan(4 * 2 * 64 * 96);
});
