/** The table of rates of a machine, from small plans that its workers ran and from what was measured apart from any plan. */
import { type OpKind, viewBytes } from '../../catalog/ops/index.js';
import { DUPLEX_STREAMS } from '../../catalog/pools.js';
import { UNMEASURED } from '../../catalog/unmeasured.js';
import type { RateOrigins, Rates } from '../../spec/types.js';
import { attentionRates } from './attention.js';
import { kernelRates, meanRates } from './kernels.js';
import { optimizerRates } from './optimizer.js';
import { plannedKinds, type Probe, sumOf, timed, timedOps } from './probe.js';
import { waitRates } from './waits.js';

export interface Measured {
  /** At least one; the first has the rows of the run. */
  readonly probes: readonly Probe[];
  /** By the names of rates. */
  readonly apart: Readonly<Partial<Record<keyof Rates, number>>>;
}

/** `base`: rates of what was not measured. */
export function measuredRates({ probes, apart }: Measured, base: Rates): { readonly rates: Rates; readonly origins: RateOrigins } {
  const [first] = probes;
  if (first === undefined) throw new RangeError('no plan was measured');
  const attention = attentionRates(probes);
  const found = {
    ...apart,
    ...UNMEASURED,
    ...meanRates(probes),
    ...(first.plan.cluster.device === 'cpu' ? copyRates(probes) : {}),
    ...optimizerRates(probes),
    kernelRates: kernelRates(probes),
    // What was not measured of the chip stays what is published of it.
    attentionKernels: [...attention, ...base.attentionKernels.filter(({ kernel }) => !attention.some((one) => one.kernel === kernel))],
    attentionForwardFlops: attention[0]?.forwardFlops ?? base.attentionForwardFlops,
    attentionBackwardFlops: attention.at(-1)?.backwardFlops ?? base.attentionBackwardFlops,
    stepOverheadSeconds: 0,
    turnOverheadSeconds: mean(probes, ({ numbers, plan }) => (numbers['idle'] ?? 0) / plan.programs.train.turns.length),
  };
  const without = { ...base, ...found };
  const rings = ringRates(probes, without);
  const beyond = { ...rings, ...zeroRates(probes, { ...without, ...rings }), ...waitRates(probes, without) };
  const rates = { ...without, ...beyond };
  const names = Object.keys(rates) as (keyof Rates)[];
  return { rates, origins: Object.fromEntries(names.map((name) => [name, name in found || name in beyond ? 'measured' : 'assumed'])) };
}

/** On a device that does one thing at a time: of copies where they run, of memory that an op has just used. */
function copyRates(probes: readonly Probe[]): Partial<Record<'h2dBytes' | 'd2hBytes', number>> {
  const rate = (stream: string): number | undefined => {
    let [bytes, seconds] = [0, 0];
    for (const probe of probes) {
      for (const { op, timed: time } of timedOps(probe)) {
        if (op.kind !== 'copy' || op.stream !== stream) continue;
        bytes += time.count * viewBytes(op.reads, probe.plan.buffers);
        seconds += time.seconds;
      }
    }
    return bytes > 0 && seconds > 0 ? bytes / seconds : undefined;
  };
  const [h2dBytes, d2hBytes] = DUPLEX_STREAMS.map(rate);
  return { ...(h2dBytes === undefined ? {} : { h2dBytes }), ...(d2hBytes === undefined ? {} : { d2hBytes }) };
}

/** Of ZeRO's collectives: where those of the plans take less than their links did alone, as fast as they were there. */
function ringRates(probes: readonly Probe[], rates: Rates): Pick<Rates, 'gatherBytes' | 'reduceBytes'> {
  const rate = (name: 'gatherBytes' | 'reduceBytes', kind: OpKind): number => {
    const planned = (bytes: number): number =>
      sumOf(probes, (probe) => plannedKinds(probe, { ...rates, [name]: bytes })[kind]?.seconds ?? 0);
    // Without what does not grow with bytes.
    const fixed = planned(Number.POSITIVE_INFINITY);
    const moving = planned(rates[name]) - fixed;
    const moved = sumOf(probes, (probe) => timed(probe, `kind/${kind}`).seconds) - fixed;
    return rates[name] * Math.min(MOST_FASTER, Math.max(1, moved > 0 ? moving / moved : MOST_FASTER));
  };
  return { gatherBytes: rate('gatherBytes', 'gather'), reduceBytes: rate('reduceBytes', 'reduce') };
}

/** Than measured alone; what takes no longer than its latency tells nothing of bytes. */
const MOST_FASTER = 10;

/** Seconds of a call of ZeRO's beyond what its links take at these rates. */
function zeroRates(probes: readonly Probe[], rates: Rates): Pick<Rates, 'zeroGatherSeconds' | 'zeroReleaseSeconds' | 'zeroReduceSeconds'> {
  const rest = (kind: OpKind): number =>
    mean(probes, (probe) => {
      const planned = plannedKinds(probe, rates)[kind];
      if (planned === undefined) return 0;
      return Math.max(0, timed(probe, `kind/${kind}`).seconds - planned.seconds) / planned.count;
    });
  return { zeroGatherSeconds: rest('gather'), zeroReleaseSeconds: rest('release'), zeroReduceSeconds: rest('reduce') };
}

function mean<T>(items: readonly T[], of: (item: T) => number): number {
  return sumOf(items, of) / items.length;
}
