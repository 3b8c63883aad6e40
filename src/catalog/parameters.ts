/** Where each weight's gradient lies: groups by module, in the order in which the model's programs first use a weight. */
import type { LayerParameters, ModelSpec, ParameterTable, ParameterView } from '../spec/types.js';
import type { Code, WeightUse } from '../spec/modelCode.js';

export function parameterTable(model: ModelSpec): ParameterTable {
  const { code } = model;
  const layers = code.classes.map(({ pre, post }): LayerParameters => {
    const weights = place(weightsOf(pre, post));
    return { weights, numElements: regionSize(weights) };
  });
  const norm = place(weightsOf(code.head));
  const numHeadNormElements = regionSize(norm);
  const lmHead = place(code.lmHead.weights, numHeadNormElements);
  const embed = place(weightsOf(code.embed));
  const all = [...code.classOf.flatMap((kind) => layers[kind]?.weights ?? []), ...norm, ...lmHead, ...embed];
  return {
    layers,
    head: [...norm, ...lmHead],
    numHeadNormElements,
    embed,
    numHeadElements: numHeadNormElements + (lmHead.length === 0 ? 0 : regionSize(lmHead)),
    numEmbedElements: regionSize(embed),
    numModelParameters: numWeightElements(all),
    numTrainedParameters: numTrainedElements(all),
  };
}

/** The weights of a decoder layer by its number. */
export function layerParameters(
  { layers }: Pick<ParameterTable, 'layers'>,
  { code }: Pick<ModelSpec, 'code'>,
  layer: number,
): LayerParameters {
  const found = layers[code.classOf[layer] ?? -1];
  if (found === undefined) throw new RangeError(`the parameter table has no layer ${layer}`);
  return found;
}

export function numWeightElements(views: readonly ParameterView[]): number {
  return views.reduce((sum, { numel }) => sum + numel, 0);
}

export function numTrainedElements(views: readonly ParameterView[]): number {
  return numWeightElements(views.filter(({ trainable }) => trainable));
}

/** Whether anything of it does. */
export function trainsEmbedding({ embed }: { readonly embed: readonly Pick<ParameterView, 'trainable'>[] }): boolean {
  return embed.some(({ trainable }) => trainable);
}

/** Each weight once, though a program may use parts of it, or all of it again. */
function weightsOf(...codes: readonly Code[]): readonly WeightUse[] {
  const all = codes.flatMap(({ instructions }) => instructions.flatMap(({ weights }) => weights));
  return [...new Map(all.map((weight) => [weight.name, weight])).values()];
}

function place(weights: readonly WeightUse[], start = 0): readonly ParameterView[] {
  let next = start;
  return weights.map(({ name, shape, frozen }) => {
    const numel = shape.reduce((product, size) => product * size, 1);
    const trainable = frozen !== true;
    const offset = trainable ? next : 0;
    if (trainable) next += numel;
    return { name, shape, offset, numel, trainable };
  });
}

/** No region is empty: every op has all of its views, and every module's turn hands something over. */
function regionSize(views: readonly ParameterView[]): number {
  return Math.max(1, numTrainedElements(views));
}
