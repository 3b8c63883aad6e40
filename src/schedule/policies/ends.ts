/** What stands at the ends of the decoder layers: embedding, final norm with lm_head and loss, and the end of the step. */
import type { LogicalSection } from '../logical.js';
import { type PolicyContext, PartWriter, at, range, ref, rowsOf, sizesOf } from './context.js';

export function embedForward(context: PolicyContext): LogicalSection {
  const sizes = sizesOf(context);
  const part = new PartWriter(0, sizes);
  const all = { tokens: range(0, sizes.numChunks) };
  const batch = ['tokenIds', 'positions', 'labels'].map((name) => ref(name, 0, sizes.numChunks));
  part.add('loadBatch', 0, { writes: batch }, all);
  part.add('zero', 0, { writes: [ref('lossSum')] });
  for (let chunk = 0; chunk < sizes.numChunks; chunk++) {
    part.add('embed', chunk, { reads: [ref('tokenIds', chunk)], writes: [at(ref('x', chunk), 'fixed', 0)] });
  }
  return { name: 'embedForward', parts: [part.finish()] };
}

/** Part 0 runs in the forward of lm_head, part 1 in its backward, after the gradient scale was compared. */
export function lossForwardBackward(context: PolicyContext): LogicalSection {
  const sizes = sizesOf(context);
  const region = rowsOf(ref('wgradHead'), 0, context.parameters.numHeadElements);
  const forward = new PartWriter(0, sizes);
  forward.add('zero', 0, { writes: [region] });
  for (let chunk = 0; chunk < sizes.numChunks; chunk++) {
    for (const [start, end] of tiles(sizes.localTokens, context.strategy.numLossTiles)) {
      const part = (name: string) => rowsOf(ref(name, chunk), start, end);
      forward.add('loss', chunk, {
        reads: [at(part('x'), 'fixed', sizes.numSegments), part('labels')],
        writes: [part('dx')],
        accumulates: [ref('lossSum'), region],
      });
    }
  }
  const backward = new PartWriter(0, sizes);
  backward.add('emitGrads', 0, { reads: [region] });
  return { name: 'lossForwardBackward', parts: [forward.finish(), backward.finish()] };
}

export function embedBackward(context: PolicyContext): LogicalSection {
  const sizes = sizesOf(context);
  const part = new PartWriter(0, sizes);
  const region = rowsOf(ref('wgradEmbed'), 0, context.parameters.numEmbedElements);
  part.add('zero', 0, { writes: [region] });
  for (let chunk = 0; chunk < sizes.numChunks; chunk++) {
    part.add('embedBwd', chunk, { reads: [ref('dx', chunk), ref('tokenIds', chunk)], accumulates: [region] });
  }
  part.add('emitGrads', 0, { reads: [region] });
  return { name: 'embedBackward', parts: [part.finish()] };
}

export function stepEnd(context: PolicyContext): LogicalSection {
  const part = new PartWriter(0, sizesOf(context));
  part.add('reduce', 0, {});
  part.add('optimizerStep', 0, {});
  return { name: 'stepEnd', parts: [part.finish()] };
}

/** Row ranges of `count` nearly equal tiles; fewer when there are fewer rows. */
function tiles(rows: number, count: number): readonly (readonly [number, number])[] {
  const number = Math.min(rows, count);
  return Array.from({ length: number }, (_, tile) => [Math.floor((rows * tile) / number), Math.floor((rows * (tile + 1)) / number)]);
}
