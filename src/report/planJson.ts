/** A plan for programs: everything but the op columns and the buffer table, whose sizes it gives. JSON-safe. */
import type { ExecutionPlan } from '../plan/executionPlan.js';
import type { SectionName } from '../schedule/op.js';

export interface PlanJson extends Omit<ExecutionPlan, 'kind' | 'schedule' | 'buffers' | 'parameters' | 'headMap'> {
  readonly kind: 'planSummary';
  readonly fits: boolean;
  readonly numModelParameters: number;
  readonly numBuffers: number;
  readonly numOps: Readonly<Record<SectionName, number>>;
}

export function planToJson(plan: ExecutionPlan): PlanJson {
  const { kind: _kind, schedule, buffers, parameters, headMap: _headMap, ...rest } = plan;
  const numOps = Object.fromEntries(Object.entries(schedule).map(([name, { ops }]) => [name, ops.length]));
  return {
    ...rest,
    kind: 'planSummary',
    fits: plan.memory.fits,
    numModelParameters: parameters.numModelParameters,
    numBuffers: buffers.length,
    numOps: numOps as Record<SectionName, number>,
  };
}
