/** Forward of one decoder layer, streamed chunk by chunk; also what backward reruns. */
import type { SectionBody, TensorRef } from '../logical.js';
import type { HeadGroup, Parameter } from '../op.js';
import { RECOMPUTE } from '../../spec/strategy.js';
import { type PolicyContext, SectionWriter, at, headGroupsOf, inPool, ref } from './context.js';
import { hiddenName } from './hiddenStates.js';
import type { LayerClass } from './layerClasses.js';
import { type KeyRange, keyRanges } from './masks.js';
import { attentionNames } from './tensors.js';

export const LAYER_INPUT: Parameter = { name: 'x', entry: { value: 'hidden', layer: 0 } };
const LAYER_OUTPUT: Parameter = { name: 'y', exit: { value: 'hidden', layer: 1 } };
export const SAVED: Parameter = { name: 'saved', entry: { value: 'attentionOutput', layer: 0 } };
export const KEPT: Parameter = { name: 'kept', entry: { value: 'internals', layer: 0 } };
const KEEPING: Parameter = { name: 'kept', exit: { value: 'internals', layer: 0 } };
const SAVING: Parameter = { name: 'saved', exit: { value: 'attentionOutput', layer: 0 } };

/** Input of the layer, on the pool of its range. */
export function layerInput(context: PolicyContext, layer: LayerClass, chunk: number): TensorRef {
  return at(ref(hiddenName(context, layer.checkpoints), chunk), LAYER_INPUT.name);
}

function layerOutput(context: PolicyContext, layer: LayerClass, chunk: number): TensorRef {
  return at(ref(hiddenName(context, layer.checkpoints), chunk), LAYER_OUTPUT.name);
}

/**
 * Attention output or lse of a group of heads: an instance for each layer where it is saved, one for the call where it is recomputed. Chunks
 * of one group follow those of another.
 */
export function attentionResult(
  context: PolicyContext,
  layer: LayerClass,
  name: 'o' | 'lse',
  chunk: number,
  heads: HeadGroup | undefined,
): TensorRef {
  const result = ref(attentionNames(context, layer)[name], ofGroup(context, chunk, heads));
  return layer.savesOutput ? at(result, SAVED.name) : result;
}

/** Number of a chunk in a tensor that holds all chunks of each group of heads. */
export function ofGroup({ strategy }: PolicyContext, chunk: number, heads: HeadGroup | undefined): number {
  return (heads?.group ?? 0) * strategy.numChunks + chunk;
}

/** Products of the layer that are kept from forward to backward. */
export function keptProducts(context: PolicyContext, { internals }: LayerClass, chunk: number): TensorRef {
  return at(ref(inPool('kept', internals, context.places), chunk), KEPT.name);
}

export function keepsInternals({ internals }: LayerClass): boolean {
  return internals !== RECOMPUTE;
}

/**
 * The whole layer: q, k, v of the next chunk are exchanged while attention of this one runs, and post runs one chunk
 * behind so that its exchange is hidden too.
 */
export function forwardSection(context: PolicyContext, layer: LayerClass): SectionBody {
  const section = new SectionWriter(context);
  const { numChunks, headGroups = 1 } = context.strategy;
  const exchange = (chunk: number): void => {
    exchangeOutput(section, context, layer, chunk);
    if (chunk > 0) after(chunk - 1);
  };
  streamAttention(section, context, layer, headGroups === 1 ? exchange : () => {});
  if (headGroups > 1) for (let chunk = 0; chunk < numChunks; chunk++) exchange(chunk);
  after(numChunks - 1);
  return section.finish([LAYER_INPUT, LAYER_OUTPUT, ...(layer.savesOutput ? [SAVING] : []), ...(keepsInternals(layer) ? [KEEPING] : [])]);

  function after(chunk: number): void {
    if (keepsInternals(layer)) postKeep(section, context, layer, chunk);
    else post(section, context, layer, chunk);
  }
}

/** Attention alone, where what follows it is rebuilt apart. */
export function attendSection(context: PolicyContext, layer: LayerClass): SectionBody {
  const section = new SectionWriter(context);
  streamAttention(section, context, layer, () => {});
  return section.finish([LAYER_INPUT, SAVING]);
}

/** x of the next layer is post(x, o) where o was saved; where it was not, the forward section itself is run again. */
export function rebuildSection(context: PolicyContext, layer: LayerClass): SectionBody {
  const section = new SectionWriter(context);
  const { numChunks } = context.strategy;
  exchangeOutput(section, context, layer, 0);
  for (let chunk = 0; chunk < numChunks; chunk++) {
    if (chunk + 1 < numChunks) exchangeOutput(section, context, layer, chunk + 1);
    post(section, context, layer, chunk);
  }
  return section.finish([LAYER_INPUT, LAYER_OUTPUT, SAVED]);
}

export function exchangeOutput(section: SectionWriter, context: PolicyContext, layer: LayerClass, chunk: number): void {
  const { each, all } = headGroupsOf(context);
  const reads = each.map((heads) => attentionResult(context, layer, 'o', chunk, heads));
  section.add('toSequence', chunk, { reads, writes: [ref('oLocal', chunk)] }, { heads: all });
}

function post(section: SectionWriter, context: PolicyContext, layer: LayerClass, chunk: number): void {
  section.add('post', chunk, {
    reads: [layerInput(context, layer, chunk), ref('oLocal', chunk)],
    writes: [layerOutput(context, layer, chunk)],
  });
}

function postKeep(section: SectionWriter, context: PolicyContext, layer: LayerClass, chunk: number): void {
  section.add('postKeep', chunk, {
    reads: [layerInput(context, layer, chunk), ref('oLocal', chunk)],
    writes: [layerOutput(context, layer, chunk), keptProducts(context, layer, chunk)],
  });
}

/** Of every chunk, group after group of its heads: pre, the exchange to heads, and attention. `afterChunk` follows each chunk's result. */
export function streamAttention(
  section: SectionWriter,
  context: PolicyContext,
  layer: LayerClass,
  afterChunk: (chunk: number) => void,
): void {
  const { numChunks } = context.strategy;
  const names = attentionNames(context, layer);
  const { each } = headGroupsOf(context);
  let numPartials = 0;
  for (const heads of each) {
    projectAndExchange(0, heads);
    for (let chunk = 0; chunk < numChunks; chunk++) {
      if (chunk + 1 < numChunks) projectAndExchange(chunk + 1, heads);
      attend(chunk, heads);
      afterChunk(chunk);
    }
    if (heads !== undefined) section.endLoop();
  }

  function projectAndExchange(chunk: number, heads: HeadGroup | undefined): void {
    const local = [ref('qLocal', chunk), ref('kLocal', chunk), ref('vLocal', chunk)];
    section.add('pre', chunk, { reads: [layerInput(context, layer, chunk), ref('positions', chunk)], writes: local });
    section.add('toHeads', chunk, { reads: local, writes: [ref(names.q, chunk), ref(names.k, chunk), ref(names.v, chunk)] }, { heads });
  }

  /** One op where the kernel sees all keys at once; else partial results, merged online in fp32. */
  function attend(chunk: number, heads: HeadGroup | undefined): void {
    const result = [attentionResult(context, layer, 'o', chunk, heads), attentionResult(context, layer, 'lse', chunk, heads)];
    const ranges = keyRanges(context, chunk, layer.window, fetchedTile(context, layer.keyValues));
    const [only] = ranges;
    if (only !== undefined && ranges.length === 1) {
      attention(chunk, only, result, heads);
      return;
    }
    const total = [ref('oAcc', chunk), ref('lseAcc', chunk)];
    for (const [n, keys] of ranges.entries()) {
      const partial = [ref('oPart', numPartials), ref('lsePart', numPartials)];
      numPartials += 1;
      attention(chunk, keys, partial, heads);
      if (n === 0) section.add('mergeFirst', chunk, { reads: partial, writes: total }, { heads });
      else {
        // What merges keys that documents may hide is left out with them.
        const isHideable = context.run.packing === true && keys.chunks.end <= chunk;
        section.add('merge', chunk, { reads: partial, accumulates: total }, { heads, ...(isHideable ? { kv: keys.chunks } : {}) });
      }
    }
    section.add('cast', chunk, { reads: total, writes: result });
  }

  function attention(chunk: number, { chunks: kv, attribute }: KeyRange, writes: readonly TensorRef[], heads: HeadGroup | undefined): void {
    const reads = [ref(names.q, chunk), ref(names.k, kv.start, kv.end), ref(names.v, kv.start, kv.end)];
    section.add('attn', chunk, { reads, writes }, { kv, attribute, heads });
  }
}

/** Chunks of a tile where a tensor of keys or values is fetched; undefined where it is at hand as a whole. */
export function fetchedTile({ places, strategy }: PolicyContext, ...homes: readonly string[]): number | undefined {
  return homes.every((home) => home === places.device) ? undefined : strategy.kvTileChunks;
}
