/** Strategies that differ from one in one choice. */
import { headGroupCounts } from '../../spec/parallelLayout.js';
import { type LayerStrategy, RECOMPUTE, type Strategy, segmentLengths } from '../../spec/strategy.js';
import { placesOf } from '../../spec/strategyPlaces.js';
import { toStrategy } from '../candidates.js';
import { pinnedPool } from '../search/assemble.js';
import type { Setting } from '../setting.js';

export interface Knob {
  /** As `--strategy` names it; a range's with its layers, `layers 0-15 keyValues`. */
  readonly knob: string;
  readonly value: string;
  readonly strategy: Strategy;
}

/**
 * Counts one more, one less, doubled and halved; every other number of groups of heads; every other place of each range; its segments
 * likewise. The rest stays.
 */
export function oneKnobAway(setting: Setting, strategy: Strategy): readonly Knob[] {
  const { pools, run } = setting;
  const { numChunks, kvTileChunks, numTokenTiles, numLossTiles, prefetchDepth, localChunkTokens } = strategy;
  const count = (knob: 'kvTileChunks' | 'numTokenTiles' | 'numLossTiles' | 'prefetchDepth', value: number, most: number): readonly Knob[] =>
    around(value, most).map((one) => ({ knob, value: String(one), strategy: { ...strategy, [knob]: one } }));
  return [
    ...around(numChunks, run.seqLen / run.sequenceParallelSize).map((one) => ({
      knob: 'numChunks',
      value: String(one),
      strategy: withChunkCount(setting, strategy, one),
    })),
    ...count('kvTileChunks', kvTileChunks, numChunks),
    ...count('numTokenTiles', numTokenTiles, localChunkTokens),
    ...count('numLossTiles', numLossTiles, localChunkTokens),
    ...count('prefetchDepth', prefetchDepth, numChunks),
    ...groupKnobs(setting, strategy),
    ...placesOf('hiddenGradients', pools)
      .filter((place) => place !== strategy.hiddenGradients)
      .map((place) => ({ knob: 'hiddenGradients', value: place, strategy: { ...strategy, hiddenGradients: place } })),
    ...strategy.layers.flatMap((_, at) => rangeKnobs(setting, strategy, at)),
  ];
}

/** None where a layer goes through keys in its outer loop, for all heads at once. */
function groupKnobs({ layout }: Setting, { headGroups = 1, ...whole }: Strategy): readonly Knob[] {
  if (whole.layers.some(({ backwardOrder }) => backwardOrder === 'keyValueOuterAscending')) return [];
  return headGroupCounts(layout)
    .filter((groups) => groups !== headGroups)
    .map((groups) => ({
      knob: 'headGroups',
      value: String(groups),
      strategy: groups === 1 ? whole : { ...whole, headGroups: groups },
    }));
}

/** Places move in one range alone. Gradients of k, v stay on the device where tiles of keys are the outer loop. */
function rangeKnobs({ pools, places }: Setting, strategy: Strategy, at: number): readonly Knob[] {
  const range = strategy.layers[at] as LayerStrategy;
  const [start, end] = range.layers;
  const knobOf = (name: string, value: string, change: Partial<LayerStrategy>): Knob => ({
    knob: `layers ${start}-${end - 1} ${name}`,
    value,
    strategy: { ...strategy, layers: strategy.layers.map((one, i) => (i === at ? { ...one, ...change } : one)) },
  });
  const tensors = ['keyValues', 'keyValueGradients', 'attentionOutput', 'internals', 'checkpoints'] as const;
  const isOuter = range.backwardOrder === 'keyValueOuterAscending';
  const moved = tensors.flatMap((tensor) =>
    placesOf(tensor, pools)
      .filter((place) => place !== (range[tensor] ?? RECOMPUTE) && !(isOuter && tensor === 'keyValueGradients' && place !== places.device))
      .map((place) => knobOf(tensor, place, { [tensor]: place })),
  );
  const lengths = around(range.segments[0] ?? 1, end - start);
  return [...moved, ...lengths.map((length) => knobOf('segments', String(length), { segments: segmentLengths(end - start, length) }))];
}

function withChunkCount({ model, run, pools, places }: Setting, strategy: Strategy, numChunks: number): Strategy {
  const made = toStrategy(
    { model, run, pools: { device: places.device, pinned: pinnedPool({ pools, places }) } },
    strategy.layers,
    numChunks,
  );
  const { kvTileChunks, headGroups, hiddenGradients } = strategy;
  return { ...made, kvTileChunks: Math.min(kvTileChunks, numChunks), ...(headGroups === undefined ? {} : { headGroups }), hiddenGradients };
}

function around(count: number, most: number): readonly number[] {
  const near = [Math.floor(count / 2), count - 1, count + 1, 2 * count];
  return [...new Set(near)].filter((one) => one >= 1 && one <= most && one !== count);
}
