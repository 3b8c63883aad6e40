/**
 * Bytes of weights, gradients and optimizer states of one rank under DeepSpeed 0.19.8, by ZeRO stage: what is there all the
 * time, and what each instant of a step adds. Formulas are those that reproduce DeepSpeed's own engine traced at full scale
 * (Llama-3-8B, 4 and 64 ranks), to a few per cent; they are cited by their terms in bytes per parameter.
 */
import { INSTANTS, type InstantName, type MemoryItem, nonEmpty } from './items.js';
import { fullySharded, fullyShardedInstant } from './stage3.js';
import { sharded, shardedInstant } from './stages12.js';
import { type ModelStatesInput, type StateItems, type Terms, termsOf } from './stateTerms.js';
import { unsharded, unshardedInstant } from './stage0.js';

export type { ModelStatesInput, StateItems } from './stateTerms.js';

export interface ModelStates extends StateItems {
  readonly instants: Readonly<Record<InstantName, readonly MemoryItem[]>>;
}

interface Stage {
  readonly states: (terms: Terms) => StateItems;
  readonly instant: (name: InstantName, terms: Terms) => readonly MemoryItem[];
}

const STAGES: Readonly<Record<Terms['zero']['stage'], Stage>> = {
  0: { states: unsharded, instant: unshardedInstant },
  1: { states: sharded, instant: shardedInstant },
  2: { states: sharded, instant: shardedInstant },
  3: { states: fullySharded, instant: fullyShardedInstant },
};

export function modelStates(input: ModelStatesInput): ModelStates {
  const terms = termsOf(input);
  const stage = STAGES[terms.zero.stage];
  const { device, pinned } = stage.states(terms);
  const instants = INSTANTS.map((name) => [name, nonEmpty(stage.instant(name, terms))] as const);
  return {
    device: nonEmpty(device),
    pinned: nonEmpty(pinned),
    instants: Object.fromEntries(instants) as ModelStates['instants'],
  };
}
