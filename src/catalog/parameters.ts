/** Where each weight's gradient lies: groups by module, in the order in which the model's programs first use a weight. */
import type { ModelSpec, ParameterTable, ParameterView } from '../spec/types.js';
import type { Code, WeightUse } from '../spec/modelCode.js';

export function parameterTable({ code, numLayers }: ModelSpec): ParameterTable {
  const [kind] = code.classes;
  const layer = place(kind === undefined ? [] : weightsOf(kind.pre, kind.post));
  const norm = place(weightsOf(code.head));
  // A norm without weights has an element too, which nothing adds to: no region is empty.
  const numHeadNormElements = Math.max(1, total(norm));
  const lmHead = place(code.lmHead.weights, numHeadNormElements);
  const embed = place(weightsOf(code.embed));
  return {
    layer,
    head: [...norm, ...lmHead],
    numHeadNormElements,
    embed,
    numLayerElements: total(layer),
    numHeadElements: numHeadNormElements + total(lmHead),
    numEmbedElements: total(embed),
    numModelParameters: numLayers * total(layer) + total(norm) + total(lmHead) + total(embed),
  };
}

/** Each weight once, though a program may use parts of it, or all of it again. */
function weightsOf(...codes: readonly Code[]): readonly WeightUse[] {
  const all = codes.flatMap(({ instructions }) => instructions.flatMap(({ weights }) => weights));
  return [...new Map(all.map((weight) => [weight.name, weight])).values()];
}

function place(weights: readonly WeightUse[], start = 0): readonly ParameterView[] {
  let offset = start;
  return weights.map(({ name, shape }) => {
    const numel = shape.reduce((product, size) => product * size, 1);
    const view = { name, shape, offset, numel, trainable: true };
    offset += numel;
    return view;
  });
}

function total(views: readonly ParameterView[]): number {
  return views.reduce((sum, { numel }) => sum + numel, 0);
}
