/**
 * Bytes of weights, gradients and optimizer states of one rank under DeepSpeed 0.19.8, by ZeRO stage: what is there all the
 * time, and what each instant of a step adds. Formulas are those that reproduce DeepSpeed's own engine traced at full scale
 * (Llama-3-8B, 4 and 64 ranks), to a few per cent; they are cited by their terms in bytes per parameter.
 */
import { EVALUATION_INSTANTS, type EvaluationInstant, INSTANTS, type InstantItem, type InstantName, nonEmpty } from './items.js';
import { fullySharded, fullyShardedEvaluation, fullyShardedInstants } from './stage3.js';
import { sharded, shardedInstants } from './stages12.js';
import { type ModelStatesInput, type StateItems, type Terms, termsOf } from './stateTerms.js';
import { unsharded, unshardedInstants } from './stage0.js';

export type { ModelStatesInput, StateItems } from './stateTerms.js';

export interface ModelStates extends Required<StateItems> {
  readonly instants: Readonly<Record<InstantName, readonly InstantItem[]>>;
  /** Of a program that evaluates. */
  readonly evaluation: Readonly<Record<EvaluationInstant, readonly InstantItem[]>>;
}

interface Stage {
  readonly states: (terms: Terms) => StateItems;
  readonly instants: (terms: Terms) => (name: InstantName) => readonly InstantItem[];
  readonly evaluation: (terms: Terms) => (name: EvaluationInstant) => readonly InstantItem[];
}

/** Weights are whole all the time. */
const NOTHING_GATHERED: Stage['evaluation'] = () => () => [];

const STAGES: Readonly<Record<Terms['zero']['stage'], Stage>> = {
  0: { states: unsharded, instants: unshardedInstants, evaluation: NOTHING_GATHERED },
  1: { states: sharded, instants: shardedInstants, evaluation: NOTHING_GATHERED },
  2: { states: sharded, instants: shardedInstants, evaluation: NOTHING_GATHERED },
  3: { states: fullySharded, instants: fullyShardedInstants, evaluation: fullyShardedEvaluation },
};

export function modelStates(input: ModelStatesInput): ModelStates {
  const terms = termsOf(input);
  const stage = STAGES[terms.zero.stage];
  const { device, pinned, file = [] } = stage.states(terms);
  const itemsOf = stage.instants(terms);
  const instants = INSTANTS.map((name) => [name, nonEmpty(itemsOf(name))] as const);
  const evaluationItemsOf = stage.evaluation(terms);
  const evaluation = EVALUATION_INSTANTS.map((name) => [name, nonEmpty(evaluationItemsOf(name))] as const);
  return {
    device: nonEmpty(device),
    pinned: nonEmpty(pinned),
    file: nonEmpty(file),
    instants: Object.fromEntries(instants) as ModelStates['instants'],
    evaluation: Object.fromEntries(evaluation) as ModelStates['evaluation'],
  };
}
