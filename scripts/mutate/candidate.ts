/** A mutant before it is built, and the kinds of damage there are. */
import { sealPlan } from '../../src/plan/encode.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import type { Op, Section } from '../../src/schedule/op.js';

export const OPERATORS = [
  'dropOp',
  'swapOps',
  'dropWait',
  'overlapBuffers',
  'shiftKv',
  'changeMask',
  'dropCall',
  'swapCalls',
  'changeArg',
  'changeLayer',
  'dropEntryWait',
] as const;
export type Operator = (typeof OPERATORS)[number];

/** A mutant before it is built: plans are large, and only a sample is run. */
export interface Candidate {
  readonly operator: Operator;
  readonly what: string;
  /** The ops of the legal plan that are dropped, swapped, or no longer ordered. */
  readonly ops: readonly Op[];
  readonly section?: Section;
  readonly build: () => ExecutionPlan;
}

/** What became of a mutant. */
export interface Verdict {
  readonly operator: string;
  readonly what: string;
  readonly fate: 'refused' | 'changed' | 'survived' | 'equal';
  readonly detail: string;
}

export function seal(plan: ExecutionPlan, changes: Partial<ExecutionPlan>): ExecutionPlan {
  return sealPlan({ ...plan, ...changes });
}
