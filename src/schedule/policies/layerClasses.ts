/**
 * Layers that run the same sections: equal placement, order, mask and size of weight gradients. A class is named by a number, 1 having
 * no suffix.
 */
import { layerParameters } from '../../catalog/parameters.js';
import type { LayerStrategy } from '../../spec/strategy.js';
import { RECOMPUTE } from '../../spec/strategy.js';
import type { PolicyContext } from './context.js';

export interface LayerClass extends Omit<LayerStrategy, 'layers' | 'segments' | 'rebuiltOutput'> {
  /** '' for the first class, '.2' for the second: what section names end with. */
  readonly suffix: string;
  /** Sliding window in tokens; null: all earlier keys. */
  readonly window: number | null;
  /** Some segment of these layers has inputs to rebuild. */
  readonly rebuilds: boolean;
  /** Attention output and lse are kept. */
  readonly savesOutput: boolean;
  /** They are kept from the rebuild of the layer's segment on, not from its forward. */
  readonly isRebuilt: boolean;
  /** Elements of the region of its weight gradients. */
  readonly regionElements: number;
}

/** Consecutive layers that share one checkpoint. */
export interface Segment {
  readonly first: number;
  /** One past its last layer. */
  readonly end: number;
  /** Index into strategy.layers. */
  readonly range: number;
}

export interface LayerPlan {
  readonly classes: readonly LayerClass[];
  /** The class of each layer. */
  readonly classOf: readonly LayerClass[];
  /** The class as which a layer is rebuilt and taken backward where that is another: its rebuild keeps what its forward did not. */
  readonly rebuiltOf: readonly (LayerClass | undefined)[];
  readonly segments: readonly Segment[];
}

export function layerPlan({ strategy, model, parameters }: Pick<PolicyContext, 'strategy' | 'model' | 'parameters'>): LayerPlan {
  const segments = strategy.layers.flatMap((one, index) => segmentsOf(one, index));
  const classes = new Classes();
  const classOf: LayerClass[] = [];
  const rebuiltOf: (LayerClass | undefined)[] = [];
  for (const { first, end, range } of segments) {
    const { layers: _, segments: lengths, rebuiltOutput = RECOMPUTE, ...choice } = strategy.layers[range] as LayerStrategy;
    const rebuilds = lengths.some((length) => length > 1);
    const savesOutput = choice.attentionOutput !== RECOMPUTE;
    for (let layer = first; layer < end; layer++) {
      const window = model.windows[layer] ?? null;
      const regionElements = layerParameters(parameters, model, layer).numElements;
      const common = { ...choice, window, regionElements };
      classOf.push(classes.of({ ...common, rebuilds, savesOutput, isRebuilt: false }));
      const keeps = layer + 1 < end && !savesOutput && rebuiltOutput !== RECOMPUTE;
      const kept = { ...common, attentionOutput: rebuiltOutput, rebuilds: false, savesOutput: true, isRebuilt: true };
      rebuiltOf.push(keeps ? classes.of(kept) : undefined);
    }
  }
  return { classes: classes.all, classOf, rebuiltOf, segments };
}

/** Equal classes are one. */
class Classes {
  readonly all: LayerClass[] = [];
  private readonly numbers = new Map<string, number>();

  of(fields: Omit<LayerClass, 'suffix'>): LayerClass {
    const key = JSON.stringify(fields);
    const number = this.numbers.get(key) ?? this.all.length;
    this.numbers.set(key, number);
    const found = this.all[number] ?? { ...fields, suffix: number === 0 ? '' : `.${number + 1}` };
    this.all[number] = found;
    return found;
  }
}

function segmentsOf({ layers: [start], segments }: LayerStrategy, range: number): readonly Segment[] {
  let first = start;
  return segments.map((length) => {
    const segment = { first, end: first + length, range };
    first += length;
    return segment;
  });
}
