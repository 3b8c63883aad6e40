/** Memory that a test makes up: whether a request fits then hangs on what the test says, whatever the solver tries. */
import type { MemoryLedger, PoolLedger } from '../../../src/memory/ledger.js';
import type { Setting } from '../../../src/strategy/setting.js';
import type { Evaluator } from '../../../src/strategy/evaluator.js';
import type { BuildInput } from '../../../src/strategy/setting.js';
import { type Bend, specs } from '../../spec/inputs.js';

/** Four CPU ranks, unless bent, and a model of 8 heads and 4 of keys and values. */
export function asked(bend: Bend = {}): BuildInput {
  const { deepspeed, ...rest } = specs(bend);
  return { ...rest, deepspeed: deepspeed.config };
}

/** Every strategy needs what `needed` says of a request, in HBM and in host memory. */
export function needs(needed: (setting: Setting) => { readonly hbm?: number; readonly host?: number }): Evaluator {
  const memory: Evaluator['memory'] = (setting) => {
    const { hbm = 0, host = 0 } = needed(setting);
    const { hbmBytes, hostBytes } = setting.cluster;
    const pools = [pool('hbm', 'device', hbm, hbmBytes), pool('host', 'pinned', host, hostBytes)];
    return { kind: 'memoryLedger', fits: pools.every(({ fits }) => fits), pools } satisfies MemoryLedger;
  };
  return { memory, seconds: () => 0, secondsSoon: () => 0, computeSeconds: () => 0, isHopeless: () => false };
}

/** What `isEnough` says fits. */
export function fitsWhere(isEnough: (setting: Setting) => boolean): Evaluator {
  return needs((setting) => ({ hbm: isEnough(setting) ? 0 : 2 * setting.cluster.hbmBytes }));
}

function pool(name: string, kind: PoolLedger['kind'], peakBytes: number, capacityBytes: number): PoolLedger {
  return {
    pool: name,
    kind,
    capacityBytes,
    reserveBytes: 0,
    persistent: [{ name: 'made up', bytes: peakBytes, provenance: 'exact', note: 'by the test' }],
    instants: [],
    load: { name: 'load', items: [], totalBytes: 0 },
    peakBytes,
    peakInstant: 'loss',
    fits: peakBytes <= capacityBytes,
  };
}
