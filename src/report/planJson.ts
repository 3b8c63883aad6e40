/** A plan for programs: everything but ops, program and buffers, whose sizes it gives. JSON-safe. */
import { type PlanCost, planCost } from '../plan/cost.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import type { ChoiceExplanation } from '../strategy/explain/choice.js';
import type { CheckedRequirement } from './requirements.js';

type LeftOut = 'kind' | 'sections' | 'programs' | 'attributes' | 'buffers' | 'parameters' | 'layout';

export interface PlanJson extends Omit<ExecutionPlan, LeftOut> {
  readonly kind: 'planSummary';
  readonly fits: boolean;
  readonly numModelParameters: number;
  readonly numTrainedParameters: number;
  readonly numBuffers: number;
  /** By section. */
  readonly numOps: Readonly<Record<string, number>>;
  readonly numTurns: number;
  readonly numCalls: number;
  readonly cost: PlanCost;
  /** Where it was asked for. */
  readonly choice?: ChoiceExplanation;
  /** Where the plan was asked to keep to any. */
  readonly requirements?: readonly CheckedRequirement[];
}

/** With money where a GPU-hour has a price. */
export function planToJson(plan: ExecutionPlan, usdPerGpuHour?: number): PlanJson {
  const { kind: _kind, sections, programs, attributes: _attributes, buffers, parameters, layout: _layout, ...rest } = plan;
  const { turns } = programs.train;
  return {
    ...rest,
    kind: 'planSummary',
    fits: plan.memory.fits,
    numModelParameters: parameters.numModelParameters,
    numTrainedParameters: parameters.numTrainedParameters,
    numBuffers: buffers.length,
    numOps: Object.fromEntries(sections.map(({ name, ops }) => [name, ops.length])),
    numTurns: turns.length,
    numCalls: turns.reduce((sum, { calls }) => sum + calls.length, 0),
    cost: planCost(plan, usdPerGpuHour),
  };
}
