/** Why a mutant that changes nothing may live: rules that are checked, not judged by eye. */
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { verifySchedule } from '../../src/schedule/verify.js';
import type { Operator } from './mutations.js';

export interface Survivor {
  readonly operator: Operator;
  readonly plan: ExecutionPlan;
  readonly mutant: ExecutionPlan;
}

/** The reason, or undefined for a survivor that nothing explains. */
export function explainSurvivor({ mutant }: Survivor): string | undefined {
  const { segmentLayers } = mutant.strategy;
  const violations = verifySchedule({ ...mutant, segmentLayers, numSegments: mutant.model.numLayers / segmentLayers });
  return violations.length === 0 ? 'the mutant is legal too: every value is in place whenever it is read' : undefined;
}
