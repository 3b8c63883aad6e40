/** Seconds of an op's own kernels, products and element-wise ones: measured where they were, else of their FLOPs, bytes and launches. */
import { type CodeName, isCodeName, type OpSizes, type OpWork, rowsOf, tileRows } from '../catalog/ops/index.js';
import { KernelTable } from '../catalog/kernelTable.js';
import type { Attribute, Op } from '../schedule/op.js';
import type { Rates } from '../spec/types.js';

type Work = Pick<OpWork, 'matmulFlops' | 'weightBytes' | 'elementBytes' | 'kernels'>;

export class KernelSeconds {
  private readonly rates: Rates;
  private readonly sizes: OpSizes;
  private readonly table: KernelTable;
  private readonly codes = new Map<string, number>();

  constructor(rates: Rates, sizes: OpSizes) {
    this.rates = rates;
    this.sizes = sizes;
    this.table = new KernelTable(rates.kernelRates);
  }

  /** `work`: of all tiles of the op together. */
  ofOp(op: Op, attribute: Attribute | undefined, work: Work): number {
    if (this.table.isEmpty) return this.byFormula(work);
    const { kind } = op;
    if (isCodeName(kind)) return tileRows(op, attribute).reduce((sum, [rows, count]) => sum + count * this.ofCode(kind, rows), 0);
    const { rows, tiles } = opRows(op, attribute);
    const ofTile = this.table.seconds({ kernel: kind, rows, work: workOfKernel(work) / tiles });
    return ofTile === undefined ? this.byFormula(work) : tiles * ofTile;
  }

  private ofCode(name: CodeName, rows: number): number {
    const key = `${name} ${rows}`;
    let seconds = this.codes.get(key);
    if (seconds === undefined) {
      seconds = 0;
      for (const { code, share } of this.sizes.code.codes(name)) {
        for (const one of code.instructions) {
          const work = this.sizes.code.instructionWork(one, code, rows);
          seconds += share * (this.table.seconds({ kernel: one.op, rows, work: workOfKernel(work) }) ?? this.byFormula(work));
        }
      }
      this.codes.set(key, seconds);
    }
    return seconds;
  }

  /**
   * Kernels run one after the other, so their times add up. A product takes its FLOPs at the rate of long rows, and the time in which
   * its weights pass through memory: half that rate where both are equal, which is what few rows get (the roofline of Williams et al.,
   * with the sum for the larger, since a product of few tiles hides little of one under the other).
   */
  private byFormula({ matmulFlops, weightBytes, elementBytes, kernels }: Work): number {
    const { launchSeconds, memoryBytes } = this.rates;
    return kernels * launchSeconds + matmulFlops / this.rates.matmulFlops + (weightBytes + elementBytes) / memoryBytes;
  }
}

/** Rows of the largest tile of an op, those of what it writes where it reads nothing; and its tiles. */
export function opRows(op: Op, attribute: Attribute | undefined): { readonly rows: number; readonly tiles: number } {
  const tiles = tileRows(op, attribute);
  const [[rows] = [0]] = tiles;
  const written = rowsOf((op.writes[0] ?? op.accumulates[0])?.rows);
  return rows === 0 ? { rows: written, tiles: 1 } : { rows, tiles: tiles.reduce((sum, [, count]) => sum + count, 0) };
}

/** What the rate of a measured kernel counts: FLOPs where there are any, else bytes. */
export function workOfKernel({ matmulFlops, elementBytes }: Pick<Work, 'matmulFlops' | 'elementBytes'>): number {
  return matmulFlops > 0 ? matmulFlops : elementBytes;
}
