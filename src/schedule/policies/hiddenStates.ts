/** Which instance of which pool's `x` holds the hidden states before each layer, and where outputs and lse are kept. */
import { RECOMPUTE } from '../../spec/strategy.js';
import { type PolicyContext, inPool } from './context.js';
import { lastFor } from './lastFor.js';
import type { LayerPlan, Segment } from './layerClasses.js';

/** One instance of the hidden states in a pool. */
export interface Slot {
  readonly pool: string;
  readonly slot: number;
}

export interface HiddenSlots {
  /** Instances that each pool needs. */
  readonly counts: ReadonlyMap<string, number>;
  /** Where layer `layer` reads its input, forward and backward; the last entry is what the head reads. */
  readonly inputs: readonly Slot[];
  /** Where layer `layer` writes its output: the next layer's input, but for a range's last layer, whose pool may be another. */
  readonly outputs: readonly Slot[];
  /** The last layer's output takes the place of its input, which backward needs again and no rebuild forms: dx's place holds it meanwhile. */
  readonly stashesInput: boolean;
}

/**
 * A checkpoint keeps an instance of its own to the end of the micro-step. The states inside a segment share instances with those of
 * every other segment, one for each position in it. What the head reads has an instance of its own on the device alone: elsewhere chunks
 * are staged, so that the last layer may write each over the one it was formed from.
 */
export function hiddenSlots(context: SlotInput, plan: LayerPlan): HiddenSlots {
  return lastSlots({ context, plan });
}

type SlotInput = Pick<PolicyContext, 'strategy' | 'model' | 'places'>;

/** A plan is of one list of ranges and one model. */
const lastSlots = lastFor(
  ({ plan }: { readonly context: SlotInput; readonly plan: LayerPlan }) => plan,
  (one, other) => one.context.places === other.context.places,
  ({ context, plan }) => slotsOf(context, plan),
);

function slotsOf({ strategy, model, places }: SlotInput, { segments }: LayerPlan): HiddenSlots {
  const counts = new Map<string, number>();
  const take = (pool: string): Slot => {
    const slot = counts.get(pool) ?? 0;
    counts.set(pool, slot + 1);
    return { pool, slot };
  };
  const poolOf = ({ range }: Segment): string => strategy.layers[range]?.checkpoints ?? '';
  const lastPool = strategy.layers.at(-1)?.checkpoints ?? '';
  const lastSegment = segments.at(-1);
  const isAlone = lastSegment === undefined || lastSegment.end - lastSegment.first === 1;
  const isInPlace = lastPool !== places.device;
  const checkpoints = segments.map((segment) => take(poolOf(segment)));
  const ownFinal = isInPlace ? undefined : take(lastPool);
  const inner = new Map<string, Slot>();
  const shared = (pool: string, position: number | 'boundary'): Slot => {
    const key = `${pool}/${position}`;
    const known = inner.get(key) ?? take(pool);
    inner.set(key, known);
    return known;
  };
  const inputs: Slot[] = [];
  const outputs: Slot[] = [];
  for (const [i, segment] of segments.entries()) {
    const pool = poolOf(segment);
    for (let layer = segment.first; layer < segment.end; layer++) {
      inputs.push(layer === segment.first ? (checkpoints[i] as Slot) : shared(pool, layer - segment.first));
      if (layer + 1 < segment.end) outputs.push(shared(pool, layer + 1 - segment.first));
      else {
        const next = layer + 1 === model.numLayers ? (ownFinal ?? (inputs[layer] as Slot)) : (checkpoints[i + 1] as Slot);
        outputs.push(next.pool === pool ? next : shared(pool, 'boundary'));
      }
    }
  }
  return { counts, inputs: [...inputs, outputs.at(-1) as Slot], outputs, stashesInput: isInPlace && isAlone };
}

/** Number of each layer among those that keep their products in the same pool. */
export function keptSlots({ classOf }: LayerPlan): readonly (number | undefined)[] {
  const counts = new Map<string, number>();
  return classOf.map(({ internals }) => {
    if (internals === RECOMPUTE) return undefined;
    const slot = counts.get(internals) ?? 0;
    counts.set(internals, slot + 1);
    return slot;
  });
}

/** Name of the tensor that holds hidden states in a pool. */
export function hiddenName(context: PolicyContext, pool: string): string {
  return inPool('x', pool, context.places);
}

/** Name of the tensor that holds their gradient. */
export function gradientName({ strategy, places }: Pick<PolicyContext, 'strategy' | 'places'>): string {
  return inPool('dx', strategy.hiddenGradients, places);
}

/**
 * Number of each layer among those that keep their output in the same pool; where only its rebuild keeps it, the layer's position in its
 * segment, since one segment is rebuilt at a time.
 */
export function savedSlots({ classOf, rebuiltOf, segments }: LayerPlan): readonly (number | undefined)[] {
  const counts = new Map<string, number>();
  const positions = segments.flatMap(({ first, end }) => Array.from({ length: end - first }, (_, position) => position));
  return classOf.map(({ savesOutput, attentionOutput }, layer) => {
    if (!savesOutput) return rebuiltOf[layer] === undefined ? undefined : positions[layer];
    const slot = counts.get(attentionOutput) ?? 0;
    counts.set(attentionOutput, slot + 1);
    return slot;
  });
}
