/** How ranks wait for each other in exchanges, from what each takes beyond its messages. */
import type { OpKind } from '../../catalog/ops/index.js';
import type { Rates } from '../../spec/types.js';
import { opCosts } from '../cost.js';
import { type Probe, sumOf, timedOps } from './probe.js';

type WaitRates = Pick<Rates, 'turnWaitSeconds' | 'rankWaitSeconds' | 'rankSkew'>;

const NONE: WaitRates = { turnWaitSeconds: 0, rankWaitSeconds: 0, rankSkew: 0 };
const EXCHANGES: ReadonlySet<OpKind> = new Set<OpKind>(['toHeads', 'toSequence']);

/** All runs of an exchange that follows work; seconds are of one. */
interface Point {
  readonly count: number;
  /** First of its section: what ranks did since the exchange before is ZeRO's as well. */
  readonly isFirst: boolean;
  readonly workSeconds: number;
  readonly waitedSeconds: number;
}

/** Waits of all exchanges but the first of sections, and of these what is left. */
export function waitRates(probes: readonly Probe[], rates: Rates): WaitRates {
  const points = probes.flatMap((probe) => pointsOf(probe, rates));
  const { rankWaitSeconds, rankSkew } = fitted(points.filter(({ isFirst }) => !isFirst));
  const firsts = points.filter(({ isFirst }) => isFirst);
  const left = sumOf(firsts, (one) => one.count * (one.waitedSeconds - rankWaitSeconds - rankSkew * one.workSeconds));
  const turnWaitSeconds = firsts.length === 0 ? 0 : Math.max(0, left / sumOf(firsts, ({ count }) => count));
  return { turnWaitSeconds, rankWaitSeconds, rankSkew };
}

/** Least squares of a fixed time and a share of the work; where one were below nothing, the other alone. */
function fitted(points: readonly Point[]): Omit<WaitRates, 'turnWaitSeconds'> {
  const total = (of: (point: Point) => number): number => sumOf(points, (point) => point.count * of(point));
  const [count, work, waited] = [total(() => 1), total((p) => p.workSeconds), total((p) => p.waitedSeconds)];
  if (waited <= 0) return NONE;
  const determinant = count * total((p) => p.workSeconds ** 2) - work ** 2;
  const isTold = determinant > SINGULAR * work ** 2;
  const rankSkew = isTold ? (count * total((p) => p.workSeconds * p.waitedSeconds) - work * waited) / determinant : 0;
  const rankWaitSeconds = (waited - rankSkew * work) / count;
  if (rankSkew < 0) return { rankWaitSeconds: waited / count, rankSkew: 0 };
  return rankWaitSeconds < 0 ? { rankWaitSeconds: 0, rankSkew: waited / work } : { rankWaitSeconds, rankSkew };
}

/** Exchanges after so equal work that what grows with it cannot be told apart. */
const SINGULAR = 1e-6;

function pointsOf(probe: Probe, rates: Rates): readonly Point[] {
  const [alone, turn, skew] = [NONE, { ...NONE, turnWaitSeconds: 1 }, { ...NONE, rankSkew: 1 }].map((waits) =>
    opCosts({ ...probe.plan, cluster: { ...probe.plan.cluster, rates: { ...rates, ...waits } } }),
  );
  if (alone === undefined || turn === undefined || skew === undefined) throw new RangeError('three prices were asked for');
  return timedOps(probe)
    .filter(({ op, timed }) => EXCHANGES.has(op.kind) && timed.count > 0)
    .map(({ op, timed: { count, seconds } }) => ({
      count,
      isFirst: turn(op).seconds > alone(op).seconds,
      workSeconds: skew(op).seconds - alone(op).seconds,
      waitedSeconds: seconds / count - alone(op).seconds,
    }))
    .filter(({ workSeconds }) => workSeconds > 0);
}
