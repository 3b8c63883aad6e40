/** What stands at the ends of the decoder layers: embedding, final norm with lm_head and loss, and what ZeRO does between. */
import { trainsEmbedding } from '../../catalog/parameters.js';
import type { SectionBody, TensorRef } from '../logical.js';
import type { Parameter } from '../op.js';
import { hiddenGradient } from './backward.js';
import { type PolicyContext, SectionWriter, at, range, ref, rowsOf, sizesOf } from './context.js';
import { hiddenName, hiddenSlots } from './hiddenStates.js';
import { layerPlan } from './layerClasses.js';
import { tablesOf, WEIGHTS } from './tensors.js';

export function embedForward(context: PolicyContext): SectionBody {
  const { numChunks } = sizesOf(context);
  const section = new SectionWriter(context);
  const x = hiddenName(context, firstPool(context));
  const all = { tokens: range(0, numChunks) };
  section.add('loadBatch', 0, { writes: tablesOf(context).map((name) => ref(name, 0, numChunks)) }, all);
  section.add('zero', 0, { writes: [ref('lossSum')] });
  for (let chunk = 0; chunk < numChunks; chunk++) {
    section.add('embed', chunk, { reads: [ref('tokenIds', chunk), ref('positions', chunk)], writes: [at(ref(x, chunk), 'x')] });
  }
  return section.finish([{ name: 'x', exit: { value: 'hidden', layer: 0 } }]);
}

/**
 * Loss and its gradients, formed with the upstream gradient that the engine is expected to give. Where dx's place holds the last layer's
 * input, that goes back chunk by chunk.
 */
export function lossForward(context: PolicyContext): SectionBody {
  const { numChunks } = sizesOf(context);
  const { parameters, model, run } = context;
  const section = new SectionWriter(context);
  const { stashesInput, inputs } = hiddenSlots(context, layerPlan(context));
  const x = hiddenName(context, inputs.at(-1)?.pool ?? '');
  const [norm, lmHead] = headRegions(context);
  section.add('zero', 0, { writes: model.tieWordEmbeddings ? [norm, lmHead] : [rowsOf(ref('wgradHead'), 0, parameters.numHeadElements)] });
  for (let chunk = 0; chunk < numChunks; chunk++) {
    if (stashesInput) section.add('cast', chunk, { reads: [hiddenGradient(context, chunk)], writes: [ref('xStashed', chunk)] });
    section.add(run.packing === true ? 'lossWeighted' : 'loss', chunk, {
      reads: [at(ref(x, chunk), 'x'), ref('labels', chunk), ...(run.packing === true ? [ref(WEIGHTS, chunk)] : [])],
      writes: [hiddenGradient(context, chunk)],
      accumulates: [ref('lossSum'), norm, lmHead],
    });
    if (stashesInput) section.add('cast', chunk, { reads: [ref('xStashed', chunk)], writes: [at(ref(x, chunk), 'x')] });
  }
  const last = model.numLayers;
  const output = { value: 'hidden', layer: last } as const;
  const gradient = { value: 'hiddenGradient', layer: last } as const;
  const input = { value: 'hidden', layer: last - 1 } as const;
  return section.finish([
    { name: 'x', entry: output, ...(stashesInput ? { exit: input } : {}) },
    { name: 'dx', ...(stashesInput ? { entry: input } : {}), exit: gradient },
  ]);
}

/** Weight gradients of the final norm, and of lm_head: beside it, or where it is tied in the embedding's region. */
function headRegions({ parameters, model }: PolicyContext): readonly [TensorRef, TensorRef] {
  const { numHeadNormElements, numHeadElements, numEmbedElements } = parameters;
  return [
    rowsOf(ref('wgradHead'), 0, numHeadNormElements),
    model.tieWordEmbeddings
      ? rowsOf(ref('wgradEmbed'), 0, numEmbedElements)
      : rowsOf(ref('wgradHead'), numHeadNormElements, numHeadElements),
  ];
}

/** Corrects what was formed by the quotient to the upstream gradient that came, then hands over the head's weights. */
export function lossBackward(context: PolicyContext): SectionBody {
  const { numChunks } = sizesOf(context);
  const { parameters, model } = context;
  const section = new SectionWriter(context);
  const head = rowsOf(ref('wgradHead'), 0, parameters.numHeadElements);
  const regions = model.tieWordEmbeddings ? [...headRegions(context)] : [head];
  section.add('rescale', 0, { accumulates: regions });
  for (let chunk = 0; chunk < numChunks; chunk++) section.add('rescale', chunk, { accumulates: [hiddenGradient(context, chunk)] });
  section.add('emitGrads', 0, { reads: [head] });
  const role = { value: 'hiddenGradient', layer: model.numLayers } as const;
  return section.finish([{ name: 'dx', entry: role, exit: role }]);
}

export function embedBackward(context: PolicyContext): SectionBody {
  const { numChunks } = sizesOf(context);
  const section = new SectionWriter(context);
  const region = rowsOf(ref('wgradEmbed'), 0, context.parameters.numEmbedElements);
  if (!context.model.tieWordEmbeddings) section.add('zero', 0, { writes: [region] });
  const chunks = trainsEmbedding(context.parameters) ? numChunks : 0;
  for (let chunk = 0; chunk < chunks; chunk++) {
    section.add('embedBwd', chunk, {
      reads: [hiddenGradient(context, chunk), ref('tokenIds', chunk), ref('positions', chunk)],
      accumulates: [region],
    });
  }
  section.add('emitGrads', 0, { reads: [region] });
  return section.finish([{ name: 'dx', entry: { value: 'hiddenGradient', layer: 0 } }]);
}

/** Moves hidden states from one tensor to another: to the pool of the next range of layers, or out of the way. */
export function relocate(context: PolicyContext, from: string, to: string): SectionBody {
  const { numChunks } = sizesOf(context);
  const section = new SectionWriter(context);
  for (let chunk = 0; chunk < numChunks; chunk++) {
    section.add('cast', chunk, {
      reads: [at(ref(from, chunk), FROM.name)],
      writes: [at(ref(to, chunk), TO.name)],
    });
  }
  return section.finish([FROM, TO]);
}
const FROM: Parameter = { name: 'from', entry: { value: 'hidden', layer: 0 } };
const TO: Parameter = { name: 'to', exit: { value: 'hidden', layer: 0 } };

/** One external op: what ZeRO does to weights, gradients and optimizer states. */
export function zeroSection(context: PolicyContext, kind: 'gather' | 'release' | 'reduce' | 'optimizerStep'): SectionBody {
  const section = new SectionWriter(context);
  section.add(kind, 0, {}, { tokens: range(0, 0) });
  return section.finish([]);
}

function firstPool(context: PolicyContext): string {
  return hiddenSlots(context, layerPlan(context)).inputs[0]?.pool ?? '';
}
