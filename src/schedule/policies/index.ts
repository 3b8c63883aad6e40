/**
 * From sizes and a strategy to a logical schedule: a pure function. Policies differ in the strategies they offer
 * (strategy/policies): ring or resident, host or device, saved or recomputed, loop order.
 */
import type { LogicalSchedule, LogicalSection } from '../logical.js';
import { backwardSection } from './backward.js';
import type { PolicyContext } from './context.js';
import { embedBackward, embedForward, lossBackward, lossForward, relocate, zeroSection } from './ends.js';
import { forwardSection, rebuildSection } from './forward.js';
import { layerPlan } from './layerClasses.js';
import { stepProgram } from './program.js';
import { TABLES, declareTensors } from './tensors.js';

export type { PolicyContext } from './context.js';
export { mostRangeChunks } from './masks.js';
export { declareTensors } from './tensors.js';

/** The compute-only schedule of one optimizer step; no copies, no waits, no addresses. */
export function logicalSchedule(context: PolicyContext): LogicalSchedule {
  const { classes } = layerPlan(context);
  const { turns, relocations } = stepProgram(context);
  const sections: readonly LogicalSection[] = [
    embedForward(context),
    ...classes.map((layer) => forwardSection(context, layer)),
    ...relocations.map(({ section, from, to }) => relocate(context, from, to, section)),
    lossForward(context),
    lossBackward(context),
    ...classes.filter(({ savesOutput, rebuilds }) => savesOutput && rebuilds).map((layer) => rebuildSection(context, layer)),
    ...classes.map((layer) => backwardSection(context, layer)),
    embedBackward(context),
    ...(['gather', 'release', 'reduce', 'optimizerStep'] as const).map((kind) => zeroSection(context, kind)),
  ];
  const called = new Set(turns.flatMap(({ calls }) => calls.map(({ section }) => section)));
  return { tensors: declareTensors(context), sections: sections.filter(({ name }) => called.has(name)), turns, tables: TABLES };
}
