/** The optimizer's fixed seconds and those of a parameter: from plans of different numbers of them, and from what runs inside ZeRO's step. */
import type { Rates } from '../../spec/types.js';
import { type Probe, timed } from './probe.js';

export function optimizerRates(
  probes: readonly Probe[],
): Pick<Rates, 'optimizerStepSeconds' | 'optimizerSecondsPerParameter' | 'offloadedOptimizerSecondsPerParameter'> {
  const points = probes.map((probe) => ({
    owned: ownedParameters(probe),
    seconds: timed(probe, 'kind/optimizerStep').seconds,
    inner: timed(probe, 'adam').seconds,
  }));
  const [most, least] = [...points].sort((a, b) => b.owned - a.owned).filter((_, i, { length }) => i === 0 || i === length - 1);
  if (most === undefined) throw new RangeError('no plan was measured');
  // Never less than the update itself, nor more than the whole step.
  const slope = least === undefined || least.owned === most.owned ? 0 : (most.seconds - least.seconds) / (most.owned - least.owned);
  const perParameter = Math.min(Math.max(slope, most.inner / most.owned), most.seconds / most.owned);
  return {
    // The difference of two that are equal may be a little below nothing.
    optimizerStepSeconds: Math.max(0, most.seconds - perParameter * most.owned),
    optimizerSecondsPerParameter: perParameter,
    offloadedOptimizerSecondsPerParameter: perParameter,
  };
}

function ownedParameters({ plan: { run, parameters, cluster } }: Probe): number {
  return parameters.numTrainedParameters / (run.zeroStage === 0 ? 1 : cluster.numRanks);
}
