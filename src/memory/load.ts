/** The peak of start-up in each kind of pool: while the model is built or inside deepspeed.initialize. Arenas come after both. */
import { type MemoryItem, nonEmpty, sumBytes } from './items.js';
import { buildingMoments } from './loadBuild.js';
import { engineMoments } from './loadEngine.js';
import type { Held } from './loadTerms.js';
import { type ModelStatesInput, termsOf } from './stateTerms.js';

export interface LoadItems {
  /** There for good, or until the run's own states take their place. */
  readonly kept: readonly MemoryItem[];
  readonly passing: readonly MemoryItem[];
}

export interface LoadInput extends ModelStatesInput {
  /** What the device has for PyTorch. */
  readonly deviceBytes: number;
}

/** By kind of pool, each at its own largest moment; a file has nothing before its pool is made. */
export function loadItems(input: LoadInput): Readonly<Record<'device' | 'pinned', LoadItems>> {
  const terms = { ...termsOf(input), deviceBytes: input.deviceBytes };
  const moments = [...buildingMoments(terms), ...engineMoments(terms)];
  return {
    device: largest(moments, (one) => inPool(one, 'device', input)),
    pinned: largest(moments, (one) => inPool(one, 'pinned', input)),
  };
}

/** On a CPU everything that PyTorch allocates is the device's: the pinned pool there is its arena alone. */
function inPool({ place }: Held, pool: 'device' | 'pinned', { device }: LoadInput): boolean {
  return (device === 'cpu' || place === 'device') === (pool === 'device');
}

function largest(moments: readonly (readonly Held[])[], isThere: (held: Held) => boolean): LoadItems {
  const there = moments.map((moment) => nonEmpty(moment.filter(isThere)));
  const most = there.reduce<readonly Held[]>((best, next) => (sumBytes(next) > sumBytes(best) ? next : best), []);
  return { kept: most.filter(({ passing }) => !passing).map(itemOf), passing: most.filter(({ passing }) => passing).map(itemOf) };
}

function itemOf({ name, bytes, provenance, note }: Held): MemoryItem {
  return { name, bytes, provenance, note };
}
