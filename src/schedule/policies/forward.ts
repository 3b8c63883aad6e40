/** Forward of one decoder layer, streamed chunk by chunk; also what backward reruns. */
import { type PolicyContext, PartWriter, at, range, ref, sizesOf } from './context.js';
import type { LogicalPart, TensorRef } from '../logical.js';
import type { Range } from '../op.js';

/** Where a layer of the segment reads its input and writes its output. */
export function layerInput(slot: number): (chunk: number) => TensorRef {
  return (chunk) => (slot === 0 ? at(ref('x', chunk), 'segment') : at(ref('xInner', chunk), 'fixed', slot - 1));
}

export function layerOutput(slot: number, segmentLayers: number): (chunk: number) => TensorRef {
  return slot === segmentLayers - 1 ? (chunk) => at(ref('x', chunk), 'segment', 1) : (chunk) => at(ref('xInner', chunk), 'fixed', slot);
}

/** Attention output and lse: one instance per layer when saved, one for the part when recomputed. */
export function attentionResult(context: PolicyContext, name: 'o' | 'lse', chunk: number): TensorRef {
  return context.strategy.attentionOutput === 'recompute' ? ref(name, chunk) : at(ref(name, chunk), 'layer');
}

export function forwardPart(context: PolicyContext, slot: number): LogicalPart {
  const part = new PartWriter(slot, sizesOf(context));
  streamForward(part, context, slot, layerOutput(slot, context.strategy.segmentLayers));
  return part.finish();
}

/**
 * The whole layer: q, k, v of the next chunk are exchanged while attention of this one runs, and post runs one chunk
 * behind so that its exchange is hidden too.
 */
export function streamForward(part: PartWriter, context: PolicyContext, slot: number, output: (chunk: number) => TensorRef): void {
  const input = layerInput(slot);
  streamAttention(part, context, slot, (chunk) => {
    part.addForSlot(slot, 'toSequence', chunk, { reads: [attentionResult(context, 'o', chunk)], writes: [ref('oLocal', chunk)] });
    if (chunk > 0) post(chunk - 1);
  });
  post(context.strategy.numChunks - 1);

  function post(chunk: number): void {
    part.addForSlot(slot, 'post', chunk, { reads: [input(chunk), ref('oLocal', chunk)], writes: [output(chunk)] });
  }
}

/** pre, the exchange to heads and attention of every chunk; `afterChunk` follows each chunk's result. */
export function streamAttention(part: PartWriter, context: PolicyContext, slot: number, afterChunk: (chunk: number) => void): void {
  const { numChunks } = context.strategy;
  let numPartials = 0;
  projectAndExchange(0);
  for (let chunk = 0; chunk < numChunks; chunk++) {
    if (chunk + 1 < numChunks) projectAndExchange(chunk + 1);
    for (const [n, kv] of keyValueRanges(context, chunk).entries()) attend(chunk, kv, n === 0);
    part.addForSlot(slot, 'cast', chunk, {
      reads: [ref('oAcc', chunk), ref('lseAcc', chunk)],
      writes: [attentionResult(context, 'o', chunk), attentionResult(context, 'lse', chunk)],
    });
    afterChunk(chunk);
  }

  function projectAndExchange(chunk: number): void {
    const local = [ref('qLocal', chunk), ref('kLocal', chunk), ref('vLocal', chunk)];
    part.addForSlot(slot, 'pre', chunk, { reads: [layerInput(slot)(chunk), ref('positions', chunk)], writes: local });
    part.addForSlot(slot, 'toHeads', chunk, { reads: local, writes: [ref('q', chunk), ref('k', chunk), ref('v', chunk)] });
  }

  function attend(chunk: number, kv: Range, first: boolean): void {
    const partial = [ref('oPart', numPartials), ref('lsePart', numPartials)];
    const total = [ref('oAcc', chunk), ref('lseAcc', chunk)];
    numPartials += 1;
    part.addForSlot(
      slot,
      'attn',
      chunk,
      { reads: [ref('q', chunk), ref('k', kv.start, kv.end), ref('v', kv.start, kv.end)], writes: partial },
      { kv },
    );
    if (first) part.addForSlot(slot, 'mergeFirst', chunk, { reads: partial, writes: total });
    else part.addForSlot(slot, 'merge', chunk, { reads: partial, accumulates: total });
  }
}

/** The diagonal first, then the past: one range when it is resident, chunk by chunk when it is fetched. */
export function keyValueRanges({ strategy }: PolicyContext, chunk: number): readonly Range[] {
  const diagonal = range(chunk, chunk + 1);
  if (strategy.keyValues === 'host') return [diagonal, ...Array.from({ length: chunk }, (_, past) => range(past, past + 1))];
  return chunk === 0 ? [diagonal] : [diagonal, range(0, chunk)];
}
