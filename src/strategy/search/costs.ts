/** What it costs not to keep something: from strategies in which one thing is different. */
import { RECOMPUTE, type Strategy } from '../../spec/strategy.js';
import type { Evaluator } from '../evaluator.js';
import type { Setting } from '../setting.js';
import { alike } from './assemble.js';
import type { FilledSegment, LayerCosts } from './fill.js';

type StrategyOf = (segments: readonly FilledSegment[]) => Strategy;

/**
 * From computing alone; of files, from whole steps. `kept` is a layer that keeps its input and output on the host; `internals` is what
 * keeping the products of one saves.
 */
export function layerCosts(
  setting: Setting,
  evaluate: Evaluator,
  strategyOf: StrategyOf,
  kept: FilledSegment,
  internals: number,
): LayerCosts {
  const { model, pools } = setting;
  const { numLayers } = model;
  const length = Math.min(2, numLayers);
  const file = pools.find(({ kind }) => kind === 'file')?.name;
  const ofAll = (change: Partial<FilledSegment>): Strategy => strategyOf(alike(numLayers, { ...kept, ...change }));
  const computing = (strategy: Strategy): number => evaluate.computeSeconds(setting, strategy);
  const all = computing(ofAll({}));
  const rerun = { length, attentionOutput: RECOMPUTE, rebuiltOutput: kept.checkpoints };
  const numRebuilt = Math.max(1, numLayers - Math.ceil(numLayers / length));
  return {
    recompute: recomputeSeconds(model.windows, (segments) => computing(strategyOf(segments)) - all, kept),
    rebuild: Math.max(0, computing(ofAll({ length })) - all) / numRebuilt,
    rerun: Math.max(0, computing(ofAll(rerun)) - computing(ofAll({ attentionOutput: RECOMPUTE }))) / numRebuilt,
    file: file === undefined ? 0 : fileSeconds(file) / numLayers,
    internals,
  };

  function fileSeconds(pool: string): number {
    const seconds = (change: Partial<FilledSegment>): number => evaluate.seconds(setting, ofAll(change));
    return Math.max(0, seconds({ attentionOutput: pool }) - seconds({}));
  }
}

/** By layer: those of one window cost alike. `moreSeconds` than where all is kept. */
function recomputeSeconds(
  windows: Setting['model']['windows'],
  moreSeconds: (segments: readonly FilledSegment[]) => number,
  kept: FilledSegment,
): readonly number[] {
  const recomputed = { ...kept, attentionOutput: RECOMPUTE };
  const ofWindow = new Map(
    [...new Set(windows)].map((window) => {
      const numLayers = windows.filter((one) => one === window).length;
      const seconds = moreSeconds(windows.map((one) => (one === window ? recomputed : kept)));
      return [window, Math.max(0, seconds) / numLayers];
    }),
  );
  return windows.map((window) => ofWindow.get(window) ?? 0);
}
