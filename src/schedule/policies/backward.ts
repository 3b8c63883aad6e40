/** Backward of one decoder layer, after what it needs was rerun from the segment's checkpoint. */
import type { LogicalPart, TensorRef } from '../logical.js';
import { type PolicyContext, PartWriter, range, ref, rowsOf, sizesOf } from './context.js';
import { attentionResult, keyValueRanges, layerInput, layerOutput, streamAttention, streamForward } from './forward.js';

/**
 * The backward part of one layer slot. The part of the last slot first rebuilds the inputs of the later layers of the
 * segment, under weights that ZeRO gathers for the moment.
 */
export function backwardPart(context: PolicyContext, slot: number): LogicalPart {
  const part = new PartWriter(slot, sizesOf(context));
  if (slot === context.strategy.segmentLayers - 1) rebuildInputs(part, context, slot);
  part.add('zero', 0, { writes: [wgradRows(0, context.parameters.numLayerElements)] });
  if (context.strategy.backwardOrder === 'keyValueOuterAscending') keyValueOuter(part, context, slot);
  else queryOuter(part, context, slot);
  part.add('emitGrads', 0, { reads: [wgradRows(0, context.parameters.numLayerElements)] });
  return part.finish();
}

function wgradRows(start: number, end: number): TensorRef {
  return rowsOf(ref('wgradLayer'), start, end);
}

/** x of layer l + 1 is post(x, o) where o was saved, and a full forward of layer l where it was not. */
function rebuildInputs(part: PartWriter, context: PolicyContext, lastSlot: number): void {
  for (let slot = 0; slot < lastSlot; slot++) {
    const output = layerOutput(slot, context.strategy.segmentLayers);
    part.addForSlot(slot, 'gather', 0, {});
    if (context.strategy.attentionOutput === 'recompute') streamForward(part, context, slot, output);
    else rebuildFromOutput(part, context, slot, output);
    part.addForSlot(slot, 'release', 0, {});
  }
}

function rebuildFromOutput(part: PartWriter, context: PolicyContext, slot: number, output: (chunk: number) => TensorRef): void {
  const { numChunks } = context.strategy;
  exchange(0);
  for (let chunk = 0; chunk < numChunks; chunk++) {
    if (chunk + 1 < numChunks) exchange(chunk + 1);
    part.addForSlot(slot, 'post', chunk, { reads: [layerInput(slot)(chunk), ref('oLocal', chunk)], writes: [output(chunk)] });
  }
  function exchange(chunk: number): void {
    part.addForSlot(slot, 'toSequence', chunk, { reads: [attentionResult(context, 'o', chunk)], writes: [ref('oLocal', chunk)] });
  }
}

/** The attention results and k, v that backward needs: recomputed in full, or k, v alone where the results were saved. */
function recompute(part: PartWriter, context: PolicyContext, slot: number): void {
  if (context.strategy.attentionOutput === 'recompute') {
    streamAttention(part, context, slot, () => {});
    return;
  }
  for (let chunk = 0; chunk < context.strategy.numChunks; chunk++) {
    const local = [ref('kLocal', chunk), ref('vLocal', chunk)];
    part.add('preKv', chunk, { reads: [layerInput(slot)(chunk), ref('positions', chunk)], writes: local });
    part.add('toHeads', chunk, { reads: local, writes: [ref('k', chunk), ref('v', chunk)] });
  }
}

/** Descending over q chunks: dq_i is final after its own turn, and so are dk_i and dv_i, which only q chunks >= i touch. */
function queryOuter(part: PartWriter, context: PolicyContext, slot: number): void {
  const { numChunks } = context.strategy;
  recompute(part, context, slot);
  part.endLoop();
  part.add('zero', 0, { writes: [ref('dk', 0, numChunks), ref('dv', 0, numChunks)] });
  prepare(numChunks - 1);
  for (let chunk = numChunks - 1; chunk >= 0; chunk--) {
    if (chunk > 0) prepare(chunk - 1);
    part.add('zero', chunk, { writes: [ref('dq', chunk)] });
    for (const kv of keyValueRanges(context, chunk)) attentionBackward(part, context, chunk, kv.start, kv.end, chunk);
    gradientsToSequence(part, chunk);
    if (chunk + 1 < numChunks) projectBackward(part, context, slot, chunk + 1);
  }
  projectBackward(part, context, slot, 0);

  function prepare(chunk: number): void {
    postBackward(part, context, slot, chunk);
    part.add('preQ', chunk, { reads: [layerInput(slot)(chunk), ref('positions', chunk)], writes: [ref('qLocal', chunk)] });
    part.add('toHeads', chunk, {
      reads: [ref('doLocal', chunk), ref('qLocal', chunk)],
      writes: [ref('do', chunk), ref('q', chunk)],
    });
  }
}

/** Ascending over k, v chunks, every later q chunk fetched for each: FPDT section 4.2, `fpdt_layer.py` backward. */
function keyValueOuter(part: PartWriter, context: PolicyContext, slot: number): void {
  const { numChunks } = context.strategy;
  recompute(part, context, slot);
  part.endLoop();
  for (let chunk = 0; chunk < numChunks; chunk++) {
    postBackward(part, context, slot, chunk);
    part.add('toHeads', chunk, { reads: [ref('doLocal', chunk)], writes: [ref('do', chunk)] });
  }
  part.endLoop();
  for (let kv = 0; kv < numChunks; kv++) {
    part.add('zero', kv, { writes: [ref('dk', kv), ref('dv', kv)] });
    for (let chunk = kv; chunk < numChunks; chunk++) {
      if (kv === 0) part.add('zero', chunk, { writes: [ref('dq', chunk)] }, { turn: kv });
      attentionBackward(part, context, chunk, kv, kv + 1, kv);
    }
    gradientsToSequence(part, kv);
    if (kv > 0) projectBackward(part, context, slot, kv - 1);
  }
  projectBackward(part, context, slot, numChunks - 1);
}

function postBackward(part: PartWriter, context: PolicyContext, slot: number, chunk: number): void {
  const { numPreElements, numLayerElements } = context.parameters;
  part.add('toSequence', chunk, { reads: [attentionResult(context, 'o', chunk)], writes: [ref('oLocal', chunk)] });
  part.add('postBwd', chunk, {
    reads: [layerInput(slot)(chunk), ref('oLocal', chunk)],
    writes: [ref('doLocal', chunk)],
    accumulates: [ref('dx', chunk), wgradRows(numPreElements, numLayerElements)],
  });
}

function attentionBackward(part: PartWriter, context: PolicyContext, chunk: number, start: number, end: number, turn: number): void {
  part.add(
    'attnBwd',
    chunk,
    {
      reads: [
        ref('q', chunk),
        ref('k', start, end),
        ref('v', start, end),
        attentionResult(context, 'o', chunk),
        attentionResult(context, 'lse', chunk),
        ref('do', chunk),
      ],
      accumulates: [ref('dq', chunk), ref('dk', start, end), ref('dv', start, end)],
    },
    { kv: range(start, end), turn },
  );
}

function gradientsToSequence(part: PartWriter, chunk: number): void {
  part.add('toSequence', chunk, {
    reads: [ref('dq', chunk), ref('dk', chunk), ref('dv', chunk)],
    writes: [ref('dqLocal', chunk), ref('dkLocal', chunk), ref('dvLocal', chunk)],
  });
}

function projectBackward(part: PartWriter, context: PolicyContext, slot: number, chunk: number): void {
  part.add('preBwd', chunk, {
    reads: [layerInput(slot)(chunk), ref('positions', chunk), ref('dqLocal', chunk), ref('dkLocal', chunk), ref('dvLocal', chunk)],
    accumulates: [ref('dx', chunk), wgradRows(0, context.parameters.numPreElements)],
  });
}
