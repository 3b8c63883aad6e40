/** How ranks wait for each other in exchanges, from what these take beyond their messages: a fixed time, and a share of the work before. */
import type { OpKind } from '../../catalog/ops/index.js';
import type { Rates } from '../../spec/types.js';
import { plannedKinds, type Probe, sumOf, timed } from './probe.js';

type WaitRates = Pick<Rates, 'rankWaitSeconds' | 'rankSkew'>;

const NONE: WaitRates = { rankWaitSeconds: 0, rankSkew: 0 };
const EXCHANGES: readonly OpKind[] = ['toHeads', 'toSequence'];

/** Of one kind of exchange in one plan. */
interface Point {
  /** Those that follow work. */
  readonly count: number;
  /** Seconds, of the work that they follow. */
  readonly work: number;
  /** Seconds. */
  readonly waited: number;
}

/** Least squares of both; where one were below nothing, the other alone. */
export function waitRates(probes: readonly Probe[], rates: Rates): WaitRates {
  const points = probes.flatMap((probe) => EXCHANGES.map((kind) => pointOf(probe, kind, rates)));
  const total = (of: (point: Point) => number): number => sumOf(points, of);
  const [counts, works, waited] = [total(({ count }) => count), total(({ work }) => work), total((point) => point.waited)];
  if (waited <= 0 || works <= 0) return NONE;
  const [cc, cw, ww] = [total((p) => p.count * p.count), total((p) => p.count * p.work), total((p) => p.work * p.work)];
  const [c, w] = [total((p) => p.count * p.waited), total((p) => p.work * p.waited)];
  const determinant = cc * ww - cw * cw;
  const rankWaitSeconds = (c * ww - w * cw) / determinant;
  const rankSkew = (w * cc - c * cw) / determinant;
  if (determinant <= SINGULAR * cc * ww || rankWaitSeconds < 0) return { rankWaitSeconds: 0, rankSkew: waited / works };
  return rankSkew < 0 ? { rankWaitSeconds: waited / counts, rankSkew: 0 } : { rankWaitSeconds, rankSkew };
}

/** Exchanges after so equal work that the two cannot be told apart. */
const SINGULAR = 1e-6;

function pointOf(probe: Probe, kind: OpKind, rates: Rates): Point {
  const seconds = (change: Partial<WaitRates>): number => plannedKinds(probe, { ...rates, ...NONE, ...change })[kind]?.seconds ?? 0;
  const alone = seconds(NONE);
  return {
    count: seconds({ rankWaitSeconds: 1 }) - alone,
    work: seconds({ rankSkew: 1 }) - alone,
    waited: timed(probe, `kind/${kind}`).seconds - alone,
  };
}
