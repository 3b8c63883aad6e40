/** The planner with what this machine has to plan faster; the plan is the same without. */
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { type PlanInput, planRunWith } from '../strategy/planRun.js';
import { nativeReplays } from './replays.js';

export interface PlanOptions {
  /** Ends planning with the signal's reason. */
  readonly signal?: AbortSignal;
}

/**
 * Plans one run. Needs neither Python nor a GPU.
 *
 * Throws an FpdtError that says what to change: `unknown-key`, `wrong-type`, `does-not-fit` and others; see its `code` and `hint`.
 */
export function planRun(input: PlanInput, { signal }: PlanOptions = {}): Promise<ExecutionPlan> {
  return planRunWith({ replays: nativeReplays, ...(signal === undefined ? {} : { signal }) }, input);
}
