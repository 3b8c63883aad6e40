/** The step program: the turns of one micro-step and its end, and which instances each call is bound to. */
import { RECOMPUTE } from '../../spec/strategy.js';
import type { Call, Turn } from '../program.js';
import { type PolicyContext, sizesOf } from './context.js';
import { gradientName, hiddenName, hiddenSlots, keptSlots, savedSlots, type Slot } from './hiddenStates.js';
import { lastFor } from './lastFor.js';
import { type LayerClass, type LayerPlan, type Segment, layerPlan } from './layerClasses.js';

/** Hidden states move between two tensors before a layer; the section that does it. */
export interface Relocation {
  readonly section: string;
  readonly from: string;
  readonly to: string;
}

/** Holds the last layer's input while its own place is the output's. */
const STASH = 'stash';

export interface StepProgram {
  readonly turns: readonly Turn[];
  readonly relocations: readonly Relocation[];
}

export const stepProgram: (context: PolicyContext) => StepProgram = lastFor(layerPlan, isSame, (context) =>
  new ProgramWriter(context).write(),
);

/** All that a program hangs on beside the plan of its layers: instances in files are counted in chunks. */
function isSame(one: PolicyContext, other: PolicyContext): boolean {
  return (
    one.model === other.model &&
    one.places === other.places &&
    one.run.zeroStage === other.run.zeroStage &&
    one.strategy.hiddenGradients === other.strategy.hiddenGradients &&
    ((one.strategy.numChunks === other.strategy.numChunks && one.strategy.headGroups === other.strategy.headGroups) || !usesFiles(one))
  );
}

function usesFiles({ strategy, places }: PolicyContext): boolean {
  return strategy.layers.some(({ checkpoints, attentionOutput, rebuiltOutput = RECOMPUTE }) =>
    [checkpoints, attentionOutput, rebuiltOutput].some((place) => place !== RECOMPUTE && places.isFile(place)),
  );
}

class ProgramWriter {
  private readonly context: PolicyContext;
  private readonly plan: LayerPlan;
  private readonly slots: ReturnType<typeof hiddenSlots>;
  private readonly saved: readonly (number | undefined)[];
  private readonly kept: readonly (number | undefined)[];
  private readonly relocations = new Map<string, Relocation>();

  constructor(context: PolicyContext) {
    this.context = context;
    this.plan = layerPlan(context);
    this.slots = hiddenSlots(context, this.plan);
    this.saved = savedSlots(this.plan);
    this.kept = keptSlots(this.plan);
  }

  write(): StepProgram {
    const { numLayers } = this.context.model;
    const layers = Array.from({ length: numLayers }, (_, layer) => layer);
    const input = this.arg(this.slots.inputs[0]);
    const final = this.arg(this.slots.inputs.at(-1));
    const dx = 0;
    const turns: readonly Turn[] = [
      this.turn('embed', 'forward', [own('embedForward', [input])]),
      ...layers.map((layer) => this.turn('layer', 'forward', this.forwardCalls(layer), layer)),
      this.turn('head', 'forward', [own('lossForward', [final, dx])]),
      this.turn('head', 'backward', [own('lossBackward', [dx])]),
      ...layers.toReversed().map((layer) => this.turn('layer', 'backward', this.backwardCalls(layer), layer)),
      this.turn('embed', 'backward', [own('embedBackward', [dx])]),
      { module: 'end', direction: 'forward', calls: [...(this.reducesEachTurn ? [] : [zero('reduce')]), own('optimizerStep', [])] },
    ];
    const { context } = this;
    const lastPool = this.slots.inputs.at(-1)?.pool ?? '';
    const stash = { section: STASH, from: hiddenName(context, lastPool), to: gradientName(context) };
    return { turns, relocations: [...this.relocations.values(), ...(this.slots.stashesInput ? [stash] : [])] };
  }

  /** What ZeRO's hooks do around a module: stage 3 gathers and releases its weights, stages 2 and 3 reduce after its backward. */
  private turn(module: Turn['module'], direction: Turn['direction'], calls: readonly Call[], layer?: number): Turn {
    const isSharded = this.context.run.zeroStage === 3;
    const before = isSharded ? [zero('gather', layer)] : [];
    const after = [
      ...(isSharded ? [zero('release', layer)] : []),
      ...(direction === 'backward' && this.reducesEachTurn ? [zero('reduce', layer)] : []),
    ];
    return { module, direction, ...(layer === undefined ? {} : { layer }), calls: [...before, ...calls, ...after] };
  }

  private get reducesEachTurn(): boolean {
    return this.context.run.zeroStage >= 2;
  }

  private forwardCalls(layer: number): readonly Call[] {
    const one = this.classOf(layer);
    return [...this.relocate(layer), ...this.stash(layer), this.forward(layer, one)];
  }

  private forward(layer: number, one: LayerClass): Call {
    return own(`layerForward${one.suffix}`, [...this.outputArgs(layer, one), ...this.keptArgs(layer, one)], layer);
  }

  /** Input, output, and where the output of attention is kept. */
  private outputArgs(layer: number, one: LayerClass): readonly number[] {
    return [this.arg(this.slots.inputs[layer]), this.arg(this.slots.outputs[layer]), ...this.savedArgs(layer, one)];
  }

  /** Before a layer whose input lies in another pool than its predecessor wrote it to. */
  private relocate(layer: number): readonly Call[] {
    const from = this.slots.outputs[layer - 1];
    const to = this.slots.inputs[layer];
    if (from === undefined || to === undefined || from.pool === to.pool) return [];
    const key = `${from.pool}/${to.pool}`;
    const number = this.relocations.size + 1;
    const section = number === 1 ? 'relocate' : `relocate.${number}`;
    const known = this.relocations.get(key) ?? {
      section,
      from: hiddenName(this.context, from.pool),
      to: hiddenName(this.context, to.pool),
    };
    this.relocations.set(key, known);
    return [own(known.section, [this.arg(from), this.arg(to)], layer)];
  }

  private stash(layer: number): readonly Call[] {
    if (!this.slots.stashesInput || layer + 1 < this.context.model.numLayers) return [];
    return [own(STASH, [this.arg(this.slots.inputs[layer]), 0], layer)];
  }

  private backwardCalls(layer: number): readonly Call[] {
    const segment = this.plan.segments.find(({ first, end }) => first <= layer && layer < end);
    const rebuilt = segment?.end === layer + 1 ? this.rebuildCalls(segment) : [];
    const one = this.plan.rebuiltOf[layer] ?? this.classOf(layer);
    const dx = 0;
    const args = [this.arg(this.slots.inputs[layer]), dx, ...this.savedArgs(layer, one), ...this.keptArgs(layer, one)];
    return [...rebuilt, own(`layerBackward${one.suffix}`, args, layer)];
  }

  /** The inputs of a segment's later layers, under weights that are gathered one layer ahead. */
  private rebuildCalls({ first, end }: Segment): readonly Call[] {
    const calls: Call[] = end - first > 1 ? [own('gather', [], first)] : [];
    for (let layer = first; layer < end - 1; layer++) {
      if (layer + 1 < end - 1) calls.push(own('gather', [], layer + 1));
      calls.push(...this.attendCalls(layer), this.rebuildCall(layer), own('release', [], layer));
    }
    return [...calls, ...this.attendCalls(end - 1)];
  }

  /** Attention of a layer whose output backward finds where it was put, apart from its successor's input, which the last one has none of. */
  private attendCalls(layer: number): readonly Call[] {
    const one = this.plan.rebuiltOf[layer];
    if (one?.rebuilds !== true) return [];
    return [own(`layerAttend${one.suffix}`, [this.arg(this.slots.inputs[layer]), ...this.savedArgs(layer, one)], layer)];
  }

  /** From an output that is there, or from the layer's input alone. */
  private rebuildCall(layer: number): Call {
    const one = this.plan.rebuiltOf[layer] ?? this.classOf(layer);
    const hasOutput = one.savesOutput && one.rebuilds;
    return hasOutput ? own(`layerRebuild${one.suffix}`, this.outputArgs(layer, one), layer) : this.forward(layer, one);
  }

  private classOf(layer: number): LayerClass {
    return this.plan.classOf[layer] as LayerClass;
  }

  /** Instances count chunks in a file pool. */
  private arg(slot: Slot | undefined): number {
    return slot === undefined ? 0 : this.instance(slot.pool, slot.slot);
  }

  /** Each has the chunks of every group of heads. */
  private savedArgs(layer: number, { savesOutput, attentionOutput }: LayerClass): readonly number[] {
    const { headGroups } = sizesOf(this.context);
    const slot = this.saved[layer] ?? 0;
    return savesOutput ? [this.instance(attentionOutput, this.context.places.isFile(attentionOutput) ? slot * headGroups : slot)] : [];
  }

  private keptArgs(layer: number, { internals }: LayerClass): readonly number[] {
    return internals === RECOMPUTE ? [] : [this.instance(internals, this.kept[layer] ?? 0)];
  }

  private instance(pool: string, slot: number): number {
    return this.context.places.isFile(pool) ? slot * sizesOf(this.context).numChunks : slot;
  }
}

/** Entry masks come with the layout. */
export function own(section: string, args: readonly number[], layer?: number): Call {
  return { section, args, ...(layer === undefined ? {} : { layer }), owner: 'plan', waits: [] };
}

export function zero(section: string, layer?: number): Call {
  return { section, args: [], ...(layer === undefined ? {} : { layer }), owner: 'zero', waits: [] };
}
