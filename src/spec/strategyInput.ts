/** Choices that a user fixes, from an object or a JSON file: parsed strictly, checked against model, pools and the run's own options. */
import * as z from 'zod';
import { count } from './count.js';
import { FpdtError } from './errors.js';
import { checkRanges, resolveSegments } from './layerRanges.js';
import { type JsonObject, parseWith, readJsonObject } from './parseJson.js';
import type { NamedPool } from './pools.js';
import type { RunInput } from './runInput.js';
import { BACKWARD_ORDERS, type ForcedLayerStrategy, type ForcedPlaces, type ForcedStrategy } from './strategy.js';
import { checkBackwardOrder, checkInternals, checkPlaces } from './strategyPlaces.js';
import type { ModelSpec } from './types.js';

/** Options of the run that a strategy may name too. */
const KNOBS = ['numChunks', 'kvTileChunks', 'numLossTiles', 'numTokenTiles', 'prefetchDepth', 'headGroups'] as const;

export type Knobs = Pick<ForcedStrategy, (typeof KNOBS)[number]>;

const layerSchema = z.strictObject({
  layers: z.tuple([z.int().min(0), count], 'expected [first layer, layer after the last]'),
  keyValues: z.string().optional(),
  keyValueGradients: z.string().optional(),
  attentionOutput: z.string().optional(),
  rebuiltOutput: z.string().optional(),
  internals: z.string().optional(),
  rebuildsLast: z.boolean().optional(),
  checkpoints: z.string().optional(),
  backwardOrder: z.enum(BACKWARD_ORDERS).optional(),
  segments: z.union([count, z.array(count).min(1)]).optional(),
});

const schema = z.strictObject({
  numChunks: count.optional(),
  kvTileChunks: count.optional(),
  numLossTiles: count.optional(),
  numTokenTiles: count.optional(),
  prefetchDepth: count.optional(),
  headGroups: count.optional(),
  hiddenGradients: z.string().optional(),
  layers: z.array(layerSchema).min(1).optional(),
});

/** As a user writes it: a ForcedStrategy, but `segments` may also be one length for all, the last one shorter. */
export type StrategyInput = z.infer<typeof schema>;
export type LayerStrategyInput = z.infer<typeof layerSchema>;

export interface ForcedChoices {
  readonly knobs: Knobs;
  /** Absent where the user fixed none. */
  readonly places?: ForcedPlaces;
}

/** What run options and strategy fix together. `pools` are those of the cluster. */
export function resolveForced(run: RunInput, model: ModelSpec, pools: readonly NamedPool[]): ForcedChoices {
  const strategy = run.strategy === undefined ? {} : parseStrategy(run.strategy);
  const knobs = mergeKnobs(run, strategy);
  checkPlaces(strategy, pools);
  const layers = strategy.layers === undefined ? undefined : resolveLayers(strategy.layers, run, model, pools);
  const places = defined<ForcedPlaces>({ hiddenGradients: strategy.hiddenGradients, layers });
  return Object.keys(places).length === 0 ? { knobs } : { knobs, places };
}

function parseStrategy(input: string | JsonObject): StrategyInput {
  return parseWith(schema, readJsonObject(input, 'strategy'), 'strategy');
}

/** Neither side silently wins: where both name a count it is the same one. */
function mergeKnobs(run: RunInput, strategy: StrategyInput): Knobs {
  for (const knob of KNOBS) {
    const [inRun, inStrategy] = [run[knob], strategy[knob]];
    if (inRun === undefined || inStrategy === undefined || inRun === inStrategy) continue;
    throw new FpdtError(`run.${knob} is ${inRun} but strategy.${knob} is ${inStrategy}`, {
      code: 'conflict',
      hint: 'give one of them, or the same number in both',
    });
  }
  return defined<Knobs>(Object.fromEntries(KNOBS.map((knob) => [knob, run[knob] ?? strategy[knob]])));
}

function resolveLayers(
  ranges: readonly LayerStrategyInput[],
  run: RunInput,
  model: ModelSpec,
  pools: readonly NamedPool[],
): readonly ForcedLayerStrategy[] {
  checkRanges(
    ranges.map(({ layers }) => layers),
    model.numLayers,
  );
  return ranges.map((range, i) => {
    checkInternals(range, `strategy.layers.${i}`, model);
    checkBackwardOrder(range, `strategy.layers.${i}`, model, pools);
    return defined<ForcedLayerStrategy>({ ...range, segments: resolveSegments(range, `strategy.layers.${i}.segments`, run.segmentLayers) });
  });
}

/** zod keeps keys that were given as undefined; a spec leaves them out. */
function defined<T extends object>(value: { readonly [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined)) as T;
}
