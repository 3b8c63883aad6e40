/** Which rows of the weight-gradient regions an op may add to: the worker finds each weight at its place in the region. */
import type { Access, Op, Range } from '../schedule/op.js';
import type { Turn } from '../schedule/program.js';
import { type Context, type VerifyInput, type WeightRegions, rowOf } from './context.js';

/** Where the gradients that a kind adds to lie, view by view, as [accumulated view, first element, end]. */
type Regions = (sizes: WeightRegions, tied: boolean) => readonly (readonly [number, number, number])[];

/** Kinds that stand for another: where something was kept, or losses have weights. */
export const VARIANTS: Readonly<Record<string, string>> = { postBwdKept: 'postBwd', lossWeighted: 'loss' };

/** Of the ops of layers see checkTurns: layers need not be alike. */
const REGIONS: Readonly<Record<string, Regions>> = {
  loss: ({ numHeadNormElements, numHeadElements, numEmbedElements }, tied) => [
    [1, 0, numHeadNormElements],
    tied ? [2, 0, numEmbedElements] : [2, numHeadNormElements, numHeadElements],
  ],
  embedBwd: ({ numEmbedElements }) => [[0, 0, numEmbedElements]],
};

export function regionProblem({ kind, accumulates }: Op, { input }: Context): string | undefined {
  const regions = REGIONS[VARIANTS[kind] ?? kind];
  if (regions === undefined) return undefined;
  for (const [view, start, end] of regions(input.parameters, input.tied)) {
    const rows = accumulates[view]?.rows;
    if (rows !== undefined && (rows.start !== start || rows.end !== end))
      return `adds gradients to elements ${rows.start}..${rows.end} of its region, expected ${start}..${end}`;
  }
  return undefined;
}

/** The views in which an op adds gradients of weights: those that its row calls so. */
export function gradientViews({ kind, accumulates }: Op): readonly Access[] {
  const names = rowOf(kind)?.accumulates ?? [];
  return names === 'many' ? [] : accumulates.filter((_, i) => names[i]?.startsWith('wgrad') === true);
}

/** The region that a turn hands over. */
export function emittedRegion({ module, layer }: Turn, { parameters, classOf }: VerifyInput): Range | undefined {
  if (module === 'end') return undefined;
  const ends = { head: parameters.numHeadElements, embed: parameters.numEmbedElements };
  return { start: 0, end: module === 'layer' ? (parameters.layers[classOf[layer ?? -1] ?? -1]?.numElements ?? 0) : ends[module] };
}
