/** Backward of one decoder layer, after what it needs was rerun from its input. */
import type { SectionBody, TensorRef } from '../logical.js';
import type { HeadGroup, Parameter } from '../op.js';
import { type PolicyContext, SectionWriter, at, headGroupsOf, range, ref, rowsOf } from './context.js';
import {
  KEPT,
  LAYER_INPUT,
  SAVED,
  attentionResult,
  exchangeOutput,
  fetchedTile,
  keepsInternals,
  keptProducts,
  layerInput,
  ofGroup,
  streamAttention,
} from './forward.js';
import { gradientName } from './hiddenStates.js';
import type { LayerClass } from './layerClasses.js';
import { type KeyRange, keyRanges, keyRangesWithin } from './masks.js';
import { attentionNames } from './tensors.js';

const HIDDEN_GRADIENT: Parameter = {
  name: 'dx',
  entry: { value: 'hiddenGradient', layer: 1 },
  exit: { value: 'hiddenGradient', layer: 0 },
};

export function backwardSection(context: PolicyContext, layer: LayerClass): SectionBody {
  const section = new SectionWriter(context);
  const region = layerWeights(layer);
  section.add('zero', 0, { writes: [region] });
  if ((context.strategy.headGroups ?? 1) > 1) groupByGroup(section, context, layer);
  else if (layer.backwardOrder === 'keyValueOuterAscending') keyValueOuter(section, context, layer);
  else queryOuter(section, context, layer);
  section.add('emitGrads', 0, { reads: [region] });
  return section.finish([LAYER_INPUT, HIDDEN_GRADIENT, ...(layer.savesOutput ? [SAVED] : []), ...(keepsInternals(layer) ? [KEPT] : [])]);
}

/** Gradients of the weights of the layer that train: each op adds to those it uses. */
function layerWeights({ regionElements }: LayerClass): TensorRef {
  return rowsOf(ref('wgradLayer'), 0, regionElements);
}

/** Gradient of the hidden states, in place: of the layer's output on entry, of its input on exit. */
export function hiddenGradient(context: PolicyContext, chunk: number): TensorRef {
  return at(ref(gradientName(context), chunk), HIDDEN_GRADIENT.name);
}

/** The attention results and k, v that backward needs: recomputed in full, or k, v alone where the results were saved. */
function recompute(section: SectionWriter, context: PolicyContext, layer: LayerClass): void {
  if (!layer.savesOutput) {
    streamAttention(section, context, layer, () => {});
    return;
  }
  projectKeyValues(section, context, layer, undefined);
}

function projectKeyValues(section: SectionWriter, context: PolicyContext, layer: LayerClass, heads: HeadGroup | undefined): void {
  const names = attentionNames(context, layer);
  for (let chunk = 0; chunk < context.strategy.numChunks; chunk++) {
    const local = [ref('kLocal', chunk), ref('vLocal', chunk)];
    section.add('preKv', chunk, { reads: [layerInput(context, layer, chunk), ref('positions', chunk)], writes: local });
    section.add('toHeads', chunk, { reads: local, writes: [ref(names.k, chunk), ref(names.v, chunk)] }, { heads });
  }
}

function projectQuery(section: SectionWriter, context: PolicyContext, layer: LayerClass, chunk: number): void {
  section.add('preQ', chunk, {
    reads: [layerInput(context, layer, chunk), ref('positions', chunk)],
    writes: [ref('qLocal', chunk)],
  });
}

/** Descending over q chunks: dq_i is final after its own turn, and so are dk_i and dv_i, which only q chunks >= i touch. */
function queryOuter(section: SectionWriter, context: PolicyContext, layer: LayerClass): void {
  const names = attentionNames(context, layer);
  recompute(section, context, layer);
  section.endLoop();
  descend(section, context, layer, prepare, undefined);

  function prepare(chunk: number): void {
    postBackward(section, context, layer, chunk);
    projectQuery(section, context, layer, chunk);
    section.add('toHeads', chunk, {
      reads: [ref('doLocal', chunk), ref('qLocal', chunk)],
      writes: [ref(names.do, chunk), ref(names.q, chunk)],
    });
  }
}

/**
 * What follows attention once, its gradients for all groups kept; then the descending loop for one group of heads after another, each of
 * which adds its share to the gradients of the layer's input and weights: they are sums over heads.
 */
function groupByGroup(section: SectionWriter, context: PolicyContext, layer: LayerClass): void {
  const names = attentionNames(context, layer);
  const { each, all } = headGroupsOf(context);
  if (!layer.savesOutput) streamAttention(section, context, layer, () => {});
  section.endLoop();
  for (let chunk = 0; chunk < context.strategy.numChunks; chunk++) {
    postBackward(section, context, layer, chunk);
    const writes = each.map((heads) => ref(names.do, ofGroup(context, chunk, heads)));
    section.add('toHeads', chunk, { reads: [ref('doLocal', chunk)], writes }, { heads: all });
  }
  for (const heads of each) {
    section.endLoop();
    projectKeyValues(section, context, layer, heads);
    section.endLoop();
    descend(section, context, layer, prepare(heads), heads);
  }

  function prepare(heads: HeadGroup | undefined): (chunk: number) => void {
    return (chunk) => {
      projectQuery(section, context, layer, chunk);
      section.add('toHeads', chunk, { reads: [ref('qLocal', chunk)], writes: [ref(names.q, chunk)] }, { heads });
    };
  }
}

/** `prepare` brings q of a chunk, and what its gradients need. */
function descend(
  section: SectionWriter,
  context: PolicyContext,
  layer: LayerClass,
  prepare: (chunk: number) => void,
  heads: HeadGroup | undefined,
): void {
  const { numChunks } = context.strategy;
  const names = attentionNames(context, layer);
  const tile = fetchedTile(context, layer.keyValues, layer.keyValueGradients);
  zeroKeyValueGradients();
  prepare(numChunks - 1);
  for (let chunk = numChunks - 1; chunk >= 0; chunk--) {
    if (chunk > 0) prepare(chunk - 1);
    section.add('zero', chunk, { writes: [ref(names.dq, chunk)] });
    for (const keys of keyRanges(context, chunk, layer.window, tile)) attentionBackward(section, context, layer, chunk, keys, chunk, heads);
    gradientsToSequence(section, context, layer, chunk, chunk, heads);
    if (chunk + 1 < numChunks) projectBackward(section, context, layer, chunk + 1, heads);
  }
  projectBackward(section, context, layer, 0, heads);

  /** Whole where they are at hand; tile by tile where each is staged. */
  function zeroKeyValueGradients(): void {
    const step = fetchedTile(context, layer.keyValueGradients) ?? numChunks;
    for (let start = 0; start < numChunks; start += step) {
      const end = Math.min(start + step, numChunks);
      section.add('zero', start, {
        writes: [ref(names.dk, start, end), ref(names.dv, start, end)],
      });
    }
    section.endLoop();
  }
}

/** Ascending over tiles of k, v, every later q chunk fetched for each: FPDT section 4.2, `fpdt_layer.py` backward. */
function keyValueOuter(section: SectionWriter, context: PolicyContext, layer: LayerClass): void {
  const { numChunks, kvTileChunks } = context.strategy;
  const names = attentionNames(context, layer);
  recompute(section, context, layer);
  section.endLoop();
  for (let chunk = 0; chunk < numChunks; chunk++) prepare(chunk);
  section.endLoop();
  let behind: number | undefined;
  for (let start = 0; start < numChunks; start += kvTileChunks) {
    const keys = range(start, Math.min(start + kvTileChunks, numChunks));
    section.add('zero', start, {
      writes: [ref(names.dk, keys.start, keys.end), ref(names.dv, keys.start, keys.end)],
    });
    for (let chunk = start; chunk < numChunks; chunk++) {
      if (start === 0) section.add('zero', chunk, { writes: [ref(names.dq, chunk)] }, { turn: start });
      for (const one of keyRangesWithin(context, chunk, layer.window, keys)) {
        attentionBackward(section, context, layer, chunk, one, start);
      }
    }
    for (let chunk = keys.start; chunk < keys.end; chunk++) {
      gradientsToSequence(section, context, layer, chunk, start);
      if (behind !== undefined) projectBackward(section, context, layer, behind);
      behind = chunk;
    }
  }
  if (behind !== undefined) projectBackward(section, context, layer, behind);

  /** Saved outputs come with k and v alone: q is projected here, beside do. */
  function prepare(chunk: number): void {
    postBackward(section, context, layer, chunk);
    if (layer.savesOutput) projectQuery(section, context, layer, chunk);
    section.add('toHeads', chunk, {
      reads: [ref('doLocal', chunk), ...(layer.savesOutput ? [ref('qLocal', chunk)] : [])],
      writes: [ref(names.do, chunk), ...(layer.savesOutput ? [ref(names.q, chunk)] : [])],
    });
  }
}

function postBackward(section: SectionWriter, context: PolicyContext, layer: LayerClass, chunk: number): void {
  exchangeOutput(section, context, layer, chunk);
  const keeps = keepsInternals(layer);
  section.add(keeps ? 'postBwdKept' : 'postBwd', chunk, {
    reads: [layerInput(context, layer, chunk), ref('oLocal', chunk), ...(keeps ? [keptProducts(context, layer, chunk)] : [])],
    writes: [ref('doLocal', chunk)],
    accumulates: [hiddenGradient(context, chunk), layerWeights(layer)],
  });
}

function attentionBackward(
  section: SectionWriter,
  context: PolicyContext,
  layer: LayerClass,
  chunk: number,
  { chunks: kv, attribute }: KeyRange,
  turn: number,
  heads?: HeadGroup,
): void {
  const names = attentionNames(context, layer);
  section.add(
    'attnBwd',
    chunk,
    {
      reads: [
        ref(names.q, chunk),
        ref(names.k, kv.start, kv.end),
        ref(names.v, kv.start, kv.end),
        attentionResult(context, layer, 'o', chunk, heads),
        attentionResult(context, layer, 'lse', chunk, heads),
        ref(names.do, ofGroup(context, chunk, heads)),
      ],
      accumulates: [ref(names.dq, chunk), ref(names.dk, kv.start, kv.end), ref(names.dv, kv.start, kv.end)],
    },
    { kv, turn, attribute, heads },
  );
}

function gradientsToSequence(
  section: SectionWriter,
  context: PolicyContext,
  layer: LayerClass,
  chunk: number,
  turn = chunk,
  heads?: HeadGroup,
): void {
  const names = attentionNames(context, layer);
  const reads = [ref(names.dq, chunk), ref(names.dk, chunk), ref(names.dv, chunk)];
  const writes = [ref('dqLocal', chunk), ref('dkLocal', chunk), ref('dvLocal', chunk)];
  section.add('toSequence', chunk, { reads, writes }, { turn, heads });
}

function projectBackward(section: SectionWriter, context: PolicyContext, layer: LayerClass, chunk: number, heads?: HeadGroup): void {
  const gradients = [ref('dqLocal', chunk), ref('dkLocal', chunk), ref('dvLocal', chunk)];
  const reads = [layerInput(context, layer, chunk), ref('positions', chunk), ...gradients];
  section.add('preBwd', chunk, { reads, accumulates: [hiddenGradient(context, chunk), layerWeights(layer)] }, { heads });
}
