/** From a frame and what each segment keeps to a strategy. */
import { keptWidth } from '../../spec/modelCode.js';
import { type LayerStrategy, segmentLengths, type Strategy } from '../../spec/strategy.js';
import { toStrategy } from '../candidates.js';
import type { Setting } from '../setting.js';
import type { FilledSegment, KeptBytes } from './fill.js';
import type { Frame } from './frames.js';

export function assemble(setting: Setting, frame: Frame, numChunks: number, segments: readonly FilledSegment[]): Strategy {
  const { model, run, places } = setting;
  const { kvTileChunks, hiddenGradients, ...ofLayers } = frame;
  const input = { model, run, pools: { device: places.device, pinned: pinnedPool(setting) } };
  const strategy = toStrategy(input, toRanges(segments, ofLayers), numChunks);
  return { ...strategy, kvTileChunks: Math.min(kvTileChunks, numChunks), hiddenGradients };
}

/** All segments alike. */
export function assembleUniform(setting: Setting, frame: Frame, numChunks: number, segment: FilledSegment): Strategy {
  return assemble(setting, frame, numChunks, alike(setting.model.numLayers, segment));
}

export type Uniform = (frame: Frame, numChunks: number, change?: Partial<FilledSegment>) => Strategy;

/** Makes such strategies: those that differ in numbers alone have the same ranges of layers, of which much is found once. */
export function uniformStrategies(setting: Setting, segment: FilledSegment): Uniform {
  const known = new Map<string, Strategy['layers']>();
  return (frame, numChunks, change = {}) => {
    const key = JSON.stringify([frame, change]);
    const strategy = assembleUniform(setting, frame, numChunks, { ...segment, ...change });
    const layers = known.get(key) ?? strategy.layers;
    known.set(key, layers);
    return { ...strategy, layers };
  };
}

/** So many layers in segments like this one; the last one shorter where they do not divide. */
export function alike(numLayers: number, segment: FilledSegment): readonly FilledSegment[] {
  return segmentLengths(numLayers, segment.length).map((length) => ({ ...segment, length }));
}

/** The pool of host memory; the device's where there is none. */
export function pinnedPool({ pools, places }: Pick<Setting, 'pools' | 'places'>): string {
  return pools.find(({ kind }) => kind === 'pinned')?.name ?? places.device;
}

/** Hidden states and products are sharded by tokens, outputs by heads; of lse there is an fp32 number a head. */
export function keptBytes({ sizes, model }: Pick<Setting, 'sizes' | 'model'>, { numChunks, chunkTokens }: Strategy): KeptBytes {
  const tokens = numChunks * chunkTokens;
  const local = (tokens * sizes.w) / sizes.ranks;
  return {
    checkpoint: local * sizes.h,
    output: tokens * (sizes.ownQ * sizes.w + sizes.ownHeads * 4),
    internals: local * keptWidth(model.code),
  };
}

/** Neighbours that keep alike are one range. */
function toRanges(
  segments: readonly FilledSegment[],
  frame: Pick<LayerStrategy, 'keyValues' | 'keyValueGradients' | 'backwardOrder'>,
): readonly LayerStrategy[] {
  const ranges: (Omit<FilledSegment, 'length'> & { layers: [number, number]; segments: number[] })[] = [];
  let layer = 0;
  for (const { length, ...kept } of segments) {
    const last = ranges.at(-1);
    if (last !== undefined && keepsAlike(last, kept)) {
      last.layers[1] += length;
      last.segments.push(length);
    } else ranges.push({ layers: [layer, layer + length], segments: [length], ...kept });
    layer += length;
  }
  return ranges.map((range) => ({ ...frame, ...range }));
}

function keepsAlike(a: Omit<FilledSegment, 'length'>, b: Omit<FilledSegment, 'length'>): boolean {
  return (
    a.checkpoints === b.checkpoints &&
    a.attentionOutput === b.attentionOutput &&
    a.rebuiltOutput === b.rebuiltOutput &&
    a.internals === b.internals
  );
}
