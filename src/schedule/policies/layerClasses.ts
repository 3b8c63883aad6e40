/**
 * Layers that run the same sections: equal placement, order, mask and size of weight gradients. A class is named by a number, 1 having
 * no suffix.
 */
import { layerParameters } from '../../catalog/parameters.js';
import type { LayerStrategy } from '../../spec/strategy.js';
import { RECOMPUTE } from '../../spec/strategy.js';
import type { PolicyContext } from './context.js';

export interface LayerClass extends Omit<LayerStrategy, 'layers' | 'segments'> {
  /** '' for the first class, '.2' for the second: what section names end with. */
  readonly suffix: string;
  /** Sliding window in tokens; null: all earlier keys. */
  readonly window: number | null;
  /** Some segment of these layers has inputs to rebuild. */
  readonly rebuilds: boolean;
  /** Attention output and lse are kept. */
  readonly savesOutput: boolean;
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
  readonly segments: readonly Segment[];
}

export function layerPlan({ strategy, model, parameters }: Pick<PolicyContext, 'strategy' | 'model' | 'parameters'>): LayerPlan {
  const segments = strategy.layers.flatMap((one, index) => segmentsOf(one, index));
  const keys: string[] = [];
  const classes: LayerClass[] = [];
  const classOf: LayerClass[] = [];
  for (const { first, end, range } of segments) {
    const { layers: _, segments: lengths, ...choice } = strategy.layers[range] as LayerStrategy;
    const rebuilds = lengths.some((length) => length > 1);
    const chosen = JSON.stringify([choice, rebuilds]);
    for (let layer = first; layer < end; layer++) {
      const window = model.windows[layer] ?? null;
      const regionElements = layerParameters(parameters, model, layer).numElements;
      const key = `${chosen} ${window} ${regionElements}`;
      let number = keys.indexOf(key);
      if (number < 0) {
        number = keys.push(key) - 1;
        const suffix = number === 0 ? '' : `.${number + 1}`;
        classes.push({ ...choice, window, rebuilds, suffix, savesOutput: choice.attentionOutput !== RECOMPUTE, regionElements });
      }
      classOf.push(classes[number] as LayerClass);
    }
  }
  return { classes, classOf, segments };
}

function segmentsOf({ layers: [start], segments }: LayerStrategy, range: number): readonly Segment[] {
  let first = start;
  return segments.map((length) => {
    const segment = { first, end: first + length, range };
    first += length;
    return segment;
  });
}
