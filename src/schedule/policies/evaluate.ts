/**
 * The program that evaluates: forward alone, of one sequence. Hidden states go from layer to layer between two places on the device, or
 * chunk by chunk over those they were formed from elsewhere; of attention no more is there than the next op reads.
 */
import { RECOMPUTE, type Strategy } from '../../spec/strategy.js';
import type { LogicalSchedule, LogicalSection, SectionBody, Tensor } from '../logical.js';
import type { Call, Turn } from '../program.js';
import { type PolicyContext, SectionWriter, at, ref, sizesOf } from './context.js';
import { embedForward, zeroSection } from './ends.js';
import { forwardSection } from './forward.js';
import { hiddenName } from './hiddenStates.js';
import { type LayerClass, layerPlan } from './layerClasses.js';
import { own, zero } from './program.js';
import { attentionNames, declareTensors, ringSlots, tablesOf } from './tensors.js';

/** Pools of what an evaluation holds for a whole sequence. */
export interface EvaluationPlaces {
  readonly keyValues: string;
  readonly hiddenStates: string;
}

/** A strategy of the same chunks and tiles as that of training, with all heads at once: there are no gradients of k and v. */
export function evaluationStrategy(strategy: Strategy, numLayers: number, { keyValues, hiddenStates }: EvaluationPlaces): Strategy {
  const { headGroups: _, ...alike } = strategy;
  return {
    ...alike,
    layers: [
      {
        layers: [0, numLayers],
        keyValues,
        keyValueGradients: keyValues,
        attentionOutput: RECOMPUTE,
        checkpoints: hiddenStates,
        backwardOrder: 'queryOuterDescending',
        segments: Array.from({ length: numLayers }, () => 1),
      },
    ],
  };
}

/** `context`: with the strategy of an evaluation. */
export function evaluationSchedule(context: PolicyContext): LogicalSchedule {
  const turns = evaluationTurns(context);
  const called = new Set(turns.flatMap(({ calls }) => calls.map(({ section }) => section)));
  const section = (name: string, write: () => SectionBody): readonly LogicalSection[] => (called.has(name) ? [{ name, ...write() }] : []);
  return {
    tensors: tensors(context),
    sections: [
      ...section(EMBED, () => embedForward(context)),
      ...layerPlan(context).classes.flatMap((one) => section(layerName(one), () => forwardSection(context, one))),
      ...section(LOSS, () => evaluateLoss(context)),
      ...(['gather', 'release'] as const).flatMap((kind) => section(kind, () => zeroSection(context, kind))),
    ],
    turns,
    tables: tablesOf(context),
    leavesOut: context.run.packing === true,
  };
}

const EMBED = 'evaluateEmbed';
const LOSS = 'evaluateLoss';

function layerName({ suffix }: Pick<LayerClass, 'suffix'>): string {
  return `evaluateLayer${suffix}`;
}

function evaluationTurns(context: PolicyContext): readonly Turn[] {
  const { classes, classOf } = layerPlan(context);
  /** Layers that differ in what trains alone run the same section. */
  const sectionOf = ({ window }: LayerClass): string => layerName(classes.find((one) => one.window === window) as LayerClass);
  const isSharded = context.run.zeroStage === 3;
  const turn = (module: Turn['module'], call: Call, layer?: number): Turn => ({
    module,
    direction: 'forward',
    ...(layer === undefined ? {} : { layer }),
    calls: isSharded ? [zero('gather', layer), call, zero('release', layer)] : [call],
  });
  const slots = numHiddenSlots(context);
  return [
    turn('embed', own(EMBED, [0])),
    ...classOf.map((one, layer) => turn('layer', own(sectionOf(one), [layer % slots, (layer + 1) % slots], layer), layer)),
    turn('head', own(LOSS, [classOf.length % slots])),
  ];
}

/** Elsewhere chunks are staged, so that each may be written over the one it was formed from. */
function numHiddenSlots({ strategy, places }: Pick<PolicyContext, 'strategy' | 'places'>): number {
  return strategy.layers[0]?.checkpoints === places.device ? 2 : 1;
}

function tensors(context: PolicyContext): readonly Tensor[] {
  const hidden = hiddenName(context, context.strategy.layers[0]?.checkpoints ?? '');
  const results = new Set(layerPlan(context).classes.flatMap((one) => [attentionNames(context, one).o, attentionNames(context, one).lse]));
  return declareTensors(context).map((one) => {
    if (one.name === hidden) return { ...one, instances: numHiddenSlots(context) };
    return results.has(one.name) ? { ...one, slots: ringSlots(sizesOf(context)) } : one;
  });
}

function evaluateLoss(context: PolicyContext): SectionBody {
  const section = new SectionWriter(context);
  const x = hiddenName(context, context.strategy.layers[0]?.checkpoints ?? '');
  for (let chunk = 0; chunk < sizesOf(context).numChunks; chunk++)
    section.add('lossOnly', chunk, { reads: [at(ref(x, chunk), 'x'), ref('labels', chunk)], accumulates: [ref('lossSum')] });
  return section.finish([{ name: 'x', entry: { value: 'hidden', layer: context.model.numLayers } }]);
}
