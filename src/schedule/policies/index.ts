/**
 * From sizes and a strategy to a logical schedule: a pure function. Policies differ in the strategies they offer
 * (strategy/policies): ring or resident, host or device, saved or recomputed, loop order.
 */
import type { LogicalSchedule, LogicalSection, SectionBody } from '../logical.js';
import { backwardSection } from './backward.js';
import type { PolicyContext } from './context.js';
import { embedBackward, embedForward, lossBackward, lossForward, relocate, zeroSection } from './ends.js';
import { attendSection, forwardSection, rebuildSection } from './forward.js';
import { type LayerClass, layerPlan } from './layerClasses.js';
import { type StepProgram, stepProgram } from './program.js';
import { declareTensors, tablesOf } from './tensors.js';

export { type PolicyContext, tilesOf } from './context.js';
export { type EvaluationPlaces, evaluationSchedule, evaluationStrategy } from './evaluate.js';
export { layerPlan } from './layerClasses.js';
export { type StepProgram, stepProgram } from './program.js';
export { mostRangeChunks } from './masks.js';
export { declareTensors } from './tensors.js';

/** The compute-only schedule of one optimizer step; no copies, no waits, no addresses. */
export function logicalSchedule(context: PolicyContext): LogicalSchedule {
  const program = stepProgram(context);
  const called = new Set(program.turns.flatMap(({ calls }) => calls.map(({ section }) => section)));
  const sections = sectionWriters(context, program).flatMap(({ name, write }) => (called.has(name) ? [write()] : []));
  const leavesOut = context.run.packing === true;
  return { tensors: declareTensors(context), sections, turns: program.turns, tables: tablesOf(context), leavesOut };
}

/** A section, not written yet. */
export interface SectionToWrite {
  readonly name: string;
  /** Of the layers that run it. */
  readonly layer?: LayerClass;
  readonly write: () => LogicalSection;
}

/** Of a strategy, called or not. */
export function sectionWriters(context: PolicyContext, { relocations }: Pick<StepProgram, 'relocations'>): readonly SectionToWrite[] {
  const { classes } = layerPlan(context);
  const one = (name: string, body: () => SectionBody): SectionToWrite => ({ name, write: () => ({ name, ...body() }) });
  const ofClasses = (name: string, all: readonly LayerClass[], body: (context: PolicyContext, layer: LayerClass) => SectionBody) =>
    all.map((layer): SectionToWrite => ({ ...one(`${name}${layer.suffix}`, () => body(context, layer)), layer }));
  const rebuilt = classes.filter(({ savesOutput, rebuilds }) => savesOutput && rebuilds);
  return [
    one('embedForward', () => embedForward(context)),
    ...ofClasses('layerForward', classes, forwardSection),
    ...relocations.map(({ section, from, to }) => one(section, () => relocate(context, from, to))),
    one('lossForward', () => lossForward(context)),
    one('lossBackward', () => lossBackward(context)),
    ...ofClasses(
      'layerAttend',
      rebuilt.filter(({ isRebuilt }) => isRebuilt),
      attendSection,
    ),
    ...ofClasses('layerRebuild', rebuilt, rebuildSection),
    ...ofClasses('layerBackward', classes, backwardSection),
    one('embedBackward', () => embedBackward(context)),
    ...(['gather', 'release', 'reduce', 'optimizerStep'] as const).map((kind) => one(kind, () => zeroSection(context, kind))),
  ];
}
