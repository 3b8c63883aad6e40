import { describe, expect, it } from 'vitest';
import { KernelTable } from '../../src/catalog/kernelTable.js';

const rate = (kernel: string, rows: number, workPerRow: number, workPerSecond: number) => ({ kernel, rows, workPerRow, workPerSecond });

const TABLE = new KernelTable([
  rate('linear', 64, 1000, 1e6),
  rate('linear', 1024, 1000, 4e6),
  rate('linear', 1024, 16_000, 8e6),
  rate('rope', 1024, 10, 2e6),
]);

describe('a table of measured kernels', () => {
  it('has what was measured as it was', () => {
    expect(TABLE.seconds({ kernel: 'linear', rows: 64, work: 64_000 })).toBeCloseTo(0.064, 12);
    expect(TABLE.seconds({ kernel: 'linear', rows: 1024, work: 1_024_000 })).toBeCloseTo(0.256, 12);
  });

  it('finds rates between two numbers of rows by their logarithms, and keeps the last beyond them', () => {
    expect(TABLE.seconds({ kernel: 'linear', rows: 256, work: 256_000 })).toBeCloseTo(0.256 / 2, 12);
    expect(TABLE.seconds({ kernel: 'linear', rows: 8, work: 8000 })).toBeCloseTo(0.008, 12);
    expect(TABLE.seconds({ kernel: 'linear', rows: 4096, work: 4_096_000 })).toBeCloseTo(1.024, 12);
  });

  it('takes the nearest work of a row', () => {
    expect(TABLE.seconds({ kernel: 'linear', rows: 1024, work: 1024 * 5000 })).toBeCloseTo((1024 * 5000) / 8e6, 12);
    expect(TABLE.seconds({ kernel: 'linear', rows: 1024, work: 1024 * 3000 })).toBeCloseTo((1024 * 3000) / 4e6, 12);
  });

  it('knows nothing of other kernels, nor of no work', () => {
    expect(TABLE.seconds({ kernel: 'add', rows: 64, work: 640 })).toBeUndefined();
    expect(TABLE.seconds({ kernel: 'rope', rows: 64, work: 0 })).toBeUndefined();
    expect([TABLE.isEmpty, new KernelTable([]).isEmpty]).toEqual([false, true]);
  });
});
