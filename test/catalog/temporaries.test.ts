/**
 * The formulas against bytes measured on the worker's own handlers (one rank, CPU, LiveBytes of python/fpdt/measure/memory.py around
 * each handler; scratchMeasured.json). Rows and sizes are small, so constants show as well as slopes. Exact to the byte, but for the
 * loss, whose formula has a few bytes of a row too many.
 */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseModel } from '../../src/catalog/index.js';
import { DEVICES } from '../../src/catalog/gpus.js';
import { ATTENTION_KERNELS } from '../../src/catalog/kernels.js';
import { attentionTemporaries } from '../../src/catalog/ops/attentionTemporaries.js';
import { OP_KIND_NAMES, OP_ROWS, type OpKind, type OpRow, temporaryBytes } from '../../src/catalog/ops/index.js';
import type { ModelSpec, RunSpec } from '../../src/spec/types.js';
import { LLAMA, specs } from '../spec/inputs.js';
import { BUFFERS, evenLayout, sampleOp, sampleSizes, tiles } from './opSamples.js';

interface Measured {
  readonly sizes: Readonly<Record<'h' | 'H' | 'K' | 'd' | 'f' | 'V', number>>;
  readonly dtype: RunSpec['dtype'];
  readonly rows: number;
  readonly bytes: Readonly<Partial<Record<OpKind, number>>>;
}

const MEASURED = JSON.parse(readFileSync('test/catalog/scratchMeasured.json', 'utf8')) as readonly Measured[];

describe.each(MEASURED)('$rows rows in $dtype of $sizes', ({ sizes, dtype, rows, bytes }) => {
  const model = parseModel({
    ...LLAMA,
    hidden_size: sizes.h,
    num_attention_heads: sizes.H,
    num_key_value_heads: sizes.K,
    head_dim: sizes.d,
    intermediate_size: sizes.f,
    vocab_size: sizes.V,
  });
  const letters = sampleSizes({ model, dtype });

  test.each(Object.entries(bytes) as [OpKind, number][])('%s takes %i bytes', (kind, measured) => {
    const predicted = temporaryBytes(sampleOp(kind, rows), undefined, BUFFERS, letters);
    expect(predicted).toBeGreaterThanOrEqual(measured);
    expect(predicted).toBeLessThanOrEqual(kind === 'loss' ? measured * 1.002 : measured);
  });
});

test('the largest kind of layer decides', () => {
  const [narrow, wide] = [parseModel(LLAMA), parseModel({ ...LLAMA, intermediate_size: 960 })];
  const classes = [...narrow.code.classes, ...wide.code.classes];
  const mixed = { ...narrow, code: { ...narrow.code, classes, classOf: [0, 0, 0, 1] } };
  const bytes = (model: ModelSpec): number => temporaryBytes(sampleOp('post', 64), undefined, BUFFERS, sampleSizes({ model }));
  expect(bytes(narrow)).toBeLessThan(bytes(wide));
  expect(bytes(mixed)).toBe(bytes(wide));
});

test('a GPU never needs less than the CPU', () => {
  const on = (device: 'cpu' | 'cuda', kind: OpKind): number =>
    temporaryBytes(sampleOp(kind, 64), undefined, BUFFERS, sampleSizes({ device }));
  for (const kind of OP_KIND_NAMES) expect(on('cuda', kind), kind).toBeGreaterThanOrEqual(on('cpu', kind));
});

test('an exchange makes a message for each pair, as large as its head-sharded side; one rank sends nothing', () => {
  const pairs = {
    reads: [
      { buffer: 0, rows: { start: 0, end: 64 } },
      { buffer: 0, rows: { start: 0, end: 32 } },
    ],
    writes: [
      { buffer: 1, rows: { start: 0, end: 10 } },
      { buffer: 1, rows: { start: 0, end: 20 } },
    ],
  };
  const bytes = (kind: OpKind, ranks: number): number =>
    temporaryBytes(sampleOp(kind, 64, pairs), undefined, BUFFERS, sampleSizes({ ranks }));
  expect(bytes('toHeads', 2)).toBe(30 * 4);
  expect(bytes('toSequence', 2)).toBe(96 * 64 * 4);
  expect(bytes('toHeads', 1)).toBe(0);
});

test('own heads are those of the layout: padded heads and copies take room', () => {
  const { model } = specs();
  const bytes = (ownHeads: number, ownKvHeads: number): number =>
    temporaryBytes(sampleOp('attnBwd', 64), undefined, BUFFERS, sampleSizes({ model, layout: evenLayout(3, ownHeads, ownKvHeads) }));
  expect(bytes(3, 3)).toBe(4 * 8 * (64 * 3 + 2 * 64 * 3));
  expect(bytes(3, 1)).toBe(4 * 8 * (64 * 3 + 2 * 64));
});

/** Measured as above: w, queries, keys, heads, key/value heads, head dim, bytes forward and backward. The mask makes no difference. */
test.each([
  ['float32', 64, 64, 4, 4, 8, 205_824, 336_896],
  ['float32', 64, 256, 4, 2, 16, 852_992, 1_377_280],
  ['float32', 128, 512, 8, 2, 8, 6_426_624, 10_620_928],
  ['bfloat16', 64, 64, 4, 4, 8, 205_824, 353_280],
  ['bfloat16', 64, 256, 4, 2, 16, 852_992, 1_410_048],
] as const)('the written-out kernel in %s, %i queries and %i keys', (dtype, queries, keys, heads, kvHeads, headDim, forward, backward) => {
  const model = parseModel({ ...LLAMA, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim });
  const sizes = sampleSizes({ model, dtype, kernels: { attn: 'reference', attnBwd: 'reference' } });
  const bytes = (kind: OpKind): number =>
    temporaryBytes(sampleOp(kind, queries, { kv: { start: 0, end: keys } }), undefined, BUFFERS, sizes);
  expect([bytes('attn'), bytes('attnBwd')]).toEqual([forward, backward]);
});

/** By hand: 200 queries and 300 keys of 4 heads, 2 of them keys', with a head dim of 40; bf16. Rows go up to 256 and 384, the head dim to 64. */
test.each([
  ['flash2', 200 * (2 * 160 + 16), 2 * 200 * 160 + 4 * 300 * 80 + 16 * 256 * 65 + 4 * 300 * 160],
  ['cudnn', 200 * (2 * 160 + 16), 2 * 200 * 160 + 4 * 300 * 80 + 4 * 200 * (160 + 8) + 4 * 300 * 160],
  ['flash3', 200 * (2 * 160 + 16), 2 * 200 * 160 + 4 * 300 * 80 + 16 * 256 * 66 + 8 * 2 * 64 * 384],
  ['flash4', 200 * (2 * 160 + 16), 2 * 200 * 160 + 4 * 300 * 80 + 16 * 256 * 66 + 8 * 2 * 64 * 384],
] as const)('%s has results and sums of its own', (kernel, forward, backward) => {
  const model = parseModel({ ...LLAMA, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 40 });
  const sizes = sampleSizes({ model, dtype: 'bfloat16', device: 'cuda', kernels: { attn: kernel, attnBwd: kernel } });
  const bytes = (kind: OpKind): number => temporaryBytes(sampleOp(kind, 200, { kv: { start: 0, end: 300 } }), undefined, BUFFERS, sizes);
  expect([bytes('attn'), bytes('attnBwd')]).toEqual([forward, backward]);
});

test('every kernel that a run may ask for, and every one with a rate, has temporaries', () => {
  const rated = DEVICES.flatMap(({ rates }) => rates.attentionKernels.map(({ kernel }) => kernel));
  for (const name of [...ATTENTION_KERNELS.map((kernel) => kernel.name), ...rated]) expect(attentionTemporaries(name)).toBeDefined();
  expect(() => attentionTemporaries('flash9')).toThrow(/flash9/);
});

test('a window that ends before the last query has results twice: those of the queries that see a key, and all', () => {
  const sizes = sampleSizes({ device: 'cuda', dtype: 'bfloat16' });
  const op = sampleOp('attn', 64, { tokens: { start: 64, end: 128 }, kv: { start: 0, end: 64 } });
  const bytes = (window: number): number => temporaryBytes(op, { mask: { kind: 'window', window } }, BUFFERS, sizes);
  expect(bytes(65)).toBe(bytes(1000));
  expect(bytes(64)).toBe(2 * bytes(65));
});

describe('tiles', () => {
  test('the largest tile decides', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<OpKind>('pre', 'preQ', 'preKv', 'post', 'postBwd', 'preBwd', 'loss'),
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 1, max: 9 }),
        (kind, rows, count) => {
          const number = Math.min(rows, count);
          const largest = Math.max(
            ...Array.from({ length: number }, (_, i) => Math.floor((rows * (i + 1)) / number) - Math.floor((rows * i) / number)),
          );
          const sizes = sampleSizes({ dtype: 'bfloat16' });
          expect(temporaryBytes(sampleOp(kind, rows), tiles(count), BUFFERS, sizes)).toBe(
            temporaryBytes(sampleOp(kind, largest), undefined, BUFFERS, sizes),
          );
        },
      ),
    );
  });

  test('only token-wise ops work in tiles', () => {
    const sizes = sampleSizes();
    for (const kind of OP_KIND_NAMES) {
      const row: OpRow = OP_ROWS[kind];
      const cut = temporaryBytes(sampleOp(kind, 64), tiles(4), BUFFERS, sizes);
      const whole = temporaryBytes(sampleOp(kind, 64), undefined, BUFFERS, sizes);
      if (!row.tiled) expect(cut, kind).toBe(whole);
    }
  });
});
