/**
 * Layers that run the same sections: equal placement, order, mask and size of weight gradients. A class is named by a number, 1 having
 * no suffix.
 */
import { layerParameters } from '../../catalog/parameters.js';
import type { LayerStrategy } from '../../spec/strategy.js';
import { RECOMPUTE } from '../../spec/strategy.js';
import type { PolicyContext } from './context.js';
import { lastFor } from './lastFor.js';

export interface LayerClass extends Omit<LayerStrategy, 'layers' | 'segments' | 'rebuiltOutput' | 'rebuildsLast' | 'internals'> {
  /** '' for the first class, '.2' for the second: what section names end with. */
  readonly suffix: string;
  /** Sliding window in tokens; null: all earlier keys. */
  readonly window: number | null;
  /** Some layer's output is rebuilt, in a section of its own, from what forward kept; or where its rebuild keeps outputs, from these. */
  readonly rebuilds: boolean;
  /** Attention output and lse are kept. */
  readonly savesOutput: boolean;
  /** They are kept from the rebuild of the layer's segment on, not from its forward. */
  readonly isRebuilt: boolean;
  /** Where products of the layer are kept, or RECOMPUTE. */
  readonly internals: string;
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

type PlanInput = Pick<PolicyContext, 'strategy' | 'model' | 'parameters'>;

/** Of the ranges of a strategy, for the last model that was asked for: a search asks for the same ones with many numbers of chunks. */
export const layerPlan: (input: PlanInput) => LayerPlan = lastFor(
  ({ strategy }) => strategy.layers,
  (one, other) => one.model === other.model && one.parameters === other.parameters,
  planOf,
);

function planOf({ strategy, model, parameters }: PlanInput): LayerPlan {
  const segments = strategy.layers.flatMap((one, index) => segmentsOf(one, index));
  const classes = new Classes();
  const kinds = strategy.layers.map((one) => kindsOf(one, classes));
  const classOf: number[] = [];
  const rebuiltOf: (number | undefined)[] = [];
  for (const { first, end, range } of segments) {
    for (let layer = first; layer < end; layer++) {
      const window = model.windows[layer] ?? null;
      const regionElements = layerParameters(parameters, model, layer).numElements;
      classOf.push(kinds[range]?.of(window, regionElements) as number);
      rebuiltOf.push(kinds[range]?.rebuiltOf(window, regionElements, layer + 1 === end));
    }
  }
  const { all } = classes;
  return {
    classes: all,
    classOf: classOf.map((number) => all[number] as LayerClass),
    rebuiltOf: rebuiltOf.map((number) => (number === undefined ? undefined : all[number])),
    segments,
  };
}

/**
 * Numbers of the classes of the layers of a range; and of those as which layers are rebuilt, where these are others: all of a segment but
 * its last one, or that one too.
 */
function kindsOf(range: LayerStrategy, classes: Classes) {
  const { layers: _, segments, rebuiltOutput = RECOMPUTE, rebuildsLast = false, internals = RECOMPUTE, ...rest } = range;
  const choice = { ...rest, internals };
  const rebuilds = segments.some((length) => length > 1);
  const savesOutput = choice.attentionOutput !== RECOMPUTE;
  const keeps = rebuilds && !savesOutput && rebuiltOutput !== RECOMPUTE;
  const kept = { ...choice, attentionOutput: rebuiltOutput, rebuilds: rebuildsLast, savesOutput: true, isRebuilt: true };
  return {
    of: (window: number | null, regionElements: number): number =>
      classes.of({ ...choice, window, regionElements, rebuilds: rebuilds && savesOutput, savesOutput, isRebuilt: false }),
    rebuiltOf: (window: number | null, regionElements: number, isLast: boolean): number | undefined =>
      keeps && (rebuildsLast || !isLast) ? classes.of({ ...kept, window, regionElements }) : undefined,
  };
}

/** Equal classes are one. Forward and backward are the same whether or not layers are rebuilt from outputs that forward kept. */
class Classes {
  readonly all: LayerClass[] = [];
  private readonly numbers = new Map<string, number>();

  /** Its number. */
  of(fields: Omit<LayerClass, 'suffix'>): number {
    const { rebuilds, ...others } = fields;
    const key = JSON.stringify(fields.isRebuilt ? fields : others);
    const number = this.numbers.get(key) ?? this.all.length;
    this.numbers.set(key, number);
    const found = this.all[number] ?? { ...fields, suffix: number === 0 ? '' : `.${number + 1}` };
    this.all[number] = { ...found, rebuilds: found.rebuilds || rebuilds };
    return number;
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
