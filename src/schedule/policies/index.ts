/**
 * Policies: pure functions from sizes and a strategy to a logical schedule. `ulysses`, `fpdt` and `auto` differ in the
 * strategy the solver fixes for them (chunk/solve.ts): ring or resident, host or HBM, saved or recomputed, loop order.
 */
import type { LogicalSchedule } from '../logical.js';
import { backwardPart } from './backward.js';
import type { PolicyContext } from './context.js';
import { embedBackward, embedForward, lossForwardBackward, stepEnd } from './ends.js';
import { forwardPart } from './forward.js';
import { declareTensors } from './tensors.js';

export type { PolicyContext } from './context.js';
export { declareTensors } from './tensors.js';

/** The compute-only schedule of one optimizer step's sections; no copies, no waits, no addresses. */
export function logicalSchedule(context: PolicyContext): LogicalSchedule {
  const slots = Array.from({ length: context.strategy.segmentLayers }, (_, slot) => slot);
  return {
    tensors: declareTensors(context),
    sections: [
      embedForward(context),
      { name: 'layerForward', parts: slots.map((slot) => forwardPart(context, slot)) },
      lossForwardBackward(context),
      { name: 'layerBackward', parts: slots.toReversed().map((slot) => backwardPart(context, slot)) },
      embedBackward(context),
      stepEnd(context),
    ],
  };
}
