/** Measured kernels by name and shape: seconds of a kernel at the rate of the nearest shape that was measured. */
import type { KernelRate } from '../spec/types.js';

/** A kernel as it is asked for; `work` is of all its rows. */
export interface KernelShape {
  readonly kernel: string;
  readonly rows: number;
  readonly work: number;
}

/** Rates of one kernel whose rows have the same work, by rising number of rows. */
interface Width {
  readonly workPerRow: number;
  readonly points: readonly KernelRate[];
}

export class KernelTable {
  private readonly widths: ReadonlyMap<string, readonly Width[]>;

  constructor(rates: readonly KernelRate[]) {
    const kernels = new Set(rates.map(({ kernel }) => kernel));
    this.widths = new Map([...kernels].map((kernel) => [kernel, widthsOf(rates.filter((rate) => rate.kernel === kernel))]));
  }

  get isEmpty(): boolean {
    return this.widths.size === 0;
  }

  /** Undefined for a kernel that was not measured, and for one that does nothing. */
  seconds({ kernel, rows, work }: KernelShape): number | undefined {
    const [first, ...others] = this.widths.get(kernel) ?? [];
    if (first === undefined || rows === 0 || work === 0) return undefined;
    const wanted = Math.log(work / rows);
    const distance = ({ workPerRow }: Width): number => Math.abs(wanted - Math.log(workPerRow));
    const nearest = others.reduce((best, one) => (distance(one) < distance(best) ? one : best), first);
    return work / rateAt(rows, nearest.points);
  }
}

function widthsOf(rates: readonly KernelRate[]): readonly Width[] {
  const found = [...new Set(rates.map(({ workPerRow }) => workPerRow))];
  return found.map((workPerRow) => ({
    workPerRow,
    points: rates.filter((rate) => rate.workPerRow === workPerRow).sort((a, b) => a.rows - b.rows),
  }));
}

/** Between two measured numbers of rows by their logarithms, as rates rise with rows until they are flat; beyond them the last. */
function rateAt(rows: number, points: readonly KernelRate[]): number {
  const above = points.findIndex((point) => point.rows >= rows);
  const high = points[above === -1 ? points.length - 1 : above];
  const low = points[above - 1];
  if (high === undefined) throw new RangeError('a kernel that was measured has no rate');
  if (low === undefined || high.rows <= rows) return high.workPerSecond;
  const share = Math.log(rows / low.rows) / Math.log(high.rows / low.rows);
  return low.workPerSecond ** (1 - share) * high.workPerSecond ** share;
}
