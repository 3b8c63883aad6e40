/**
 * The formulas against bytes measured on the worker's own handlers (one rank, CPU, LiveBytes of python/fpdt/memory.py around
 * each handler; scratchMeasured.json). Rows and sizes are small, so constants show as well as slopes.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parameterTable, parseModel, scratchFormula } from '../../src/catalog/index.js';
import type { BufferShape, OpShape } from '../../src/catalog/opShape.js';
import { OP_KIND_NAMES } from '../../src/schedule/op.js';
import type { RunSpec } from '../../src/spec/types.js';
import { LLAMA, specs } from '../spec/inputs.js';

interface Measured {
  readonly sizes: Readonly<Record<'h' | 'H' | 'K' | 'd' | 'f' | 'V', number>>;
  readonly dtype: RunSpec['dtype'];
  readonly rows: number;
  readonly bytes: Readonly<Record<string, number>>;
}

const MEASURED = JSON.parse(readFileSync('test/catalog/scratchMeasured.json', 'utf8')) as readonly Measured[];

const op = (kind: string, rows: number): OpShape => ({
  kind,
  tokens: { start: 0, end: rows },
  kv: { start: 0, end: rows },
  reads: [{ buffer: 0, rows: { start: 0, end: rows } }],
  writes: [],
  accumulates: [],
});
const BUFFERS: readonly BufferShape[] = [{ id: 0, dtype: 'float32', shape: [4096, 64] }];

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
  const run: RunSpec = { ...specs().run, sequenceParallelSize: 1, dtype };
  const formula = scratchFormula(model, run, parameterTable(model), 'cpu');

  test.each(Object.entries(bytes))('%s takes %i bytes', (kind, measured) => {
    const predicted = formula(op(kind, rows), BUFFERS);
    expect(predicted).toBeGreaterThanOrEqual(measured * 0.995);
    expect(predicted).toBeLessThanOrEqual(measured * 1.03);
  });
});

test('every op kind has a formula, and a GPU never needs less than the CPU', () => {
  const { model, run } = specs();
  const [cpu, cuda] = (['cpu', 'cuda'] as const).map((device) => scratchFormula(model, run, parameterTable(model), device));
  for (const kind of OP_KIND_NAMES) {
    expect(cuda?.(op(kind, 64), BUFFERS), kind).toBeGreaterThanOrEqual(cpu?.(op(kind, 64), BUFFERS) ?? Number.POSITIVE_INFINITY);
  }
  expect(() => cpu?.(op('attnn', 1), BUFFERS)).toThrow(/attnn/);
});

test('an exchange packs what it sends and what it receives, and one rank sends nothing', () => {
  const { model, run } = specs();
  const exchange = { ...op('toHeads', 64), writes: [{ buffer: 0, rows: { start: 0, end: 64 } }] };
  expect(scratchFormula(model, run)(exchange, BUFFERS)).toBe(2 * 64 * 64 * 4);
  expect(scratchFormula(model, { ...run, sequenceParallelSize: 1 })(exchange, BUFFERS)).toBe(0);
});
