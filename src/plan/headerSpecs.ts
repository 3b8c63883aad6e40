/** Strict schemas of what a plan's header says of model, run and strategy. The types in spec/ say what each field means. */
import * as z from 'zod';
import { MODEL_DTYPES } from '../spec/dtype.js';
import { kernelChoicesSchema } from '../spec/kernelChoices.js';
import {
  type Code,
  type Instruction,
  INSTRUCTION_NAMES,
  type LayerCode,
  type LmHead,
  type ModelCode,
  type WeightUse,
} from '../spec/modelCode.js';
import type { HeadMap, ParallelLayout } from '../spec/parallelLayout.js';
import {
  BACKWARD_ORDERS,
  type ForcedLayerStrategy,
  type ForcedPlaces,
  type LayerStrategy,
  POLICIES,
  RECOMPUTE,
  type Strategy,
} from '../spec/strategy.js';
import type { LayerParameters, ModelSpec, ParameterTable, ParameterView, RunSpec } from '../spec/types.js';

/** One schema for every field of T: a field that is added to a type and not to its schema does not compile. */
export type Shape<T> = { readonly [K in keyof T]-?: z.ZodType<T[K]> };

export const count = z.int().nonnegative();
export const positive = z.int().positive();
/** Names of pools, streams and parameters: one word of an op's text. */
export const word = z.string().regex(/^[A-Za-z]\w*$/);
/** Names of buffers and sections. */
export const dotted = z.string().regex(/^[A-Za-z][\w.@]*$/);
/** Objects of others that pass through as they are: a Hugging Face config, a ds_config. */
export const foreignObject = z.record(z.string(), z.unknown());
const option = z.exactOptional;

const policy = z.enum(POLICIES);
const backwardOrder = z.enum(BACKWARD_ORDERS);
const layerRange = z.tuple([count, count]);
const place = word;
const outputPlace = z.union([word, z.literal(RECOMPUTE)]);

const numberOrNull = z.number().nullable();

const weightUseSchema = z.strictObject({
  name: z.string(),
  shape: z.array(positive),
  part: option(z.tuple([count, positive])),
  frozen: option(z.literal(true)),
} satisfies Shape<WeightUse>);

const instructionSchema = z.strictObject({
  op: z.enum(INSTRUCTION_NAMES),
  reads: z.array(z.string()),
  writes: z.array(z.string()),
  into: option(z.string()),
  frees: z.array(z.string()),
  weights: z.array(weightUseSchema),
  attributes: z.record(z.string(), z.union([z.number(), z.string(), z.boolean()])),
} satisfies Shape<Instruction>);

const codeSchema = z.strictObject({
  instructions: z.array(instructionSchema),
  widths: z.record(z.string(), count),
} satisfies Shape<Code>);

const layerCodeSchema = z.strictObject({
  attention: z.strictObject({ scale: z.number(), softcap: numberOrNull }),
  pre: codeSchema,
  preQ: codeSchema,
  preKv: codeSchema,
  preBwd: codeSchema,
  post: codeSchema,
  postBwd: codeSchema,
  postKeep: codeSchema,
  postBwdKept: codeSchema,
} satisfies Shape<LayerCode>);

const modelCodeSchema = z.strictObject({
  layers: z.string(),
  classes: z.array(layerCodeSchema).min(1),
  classOf: z.array(count),
  embed: codeSchema,
  embedBwd: codeSchema,
  head: codeSchema,
  headBwd: codeSchema,
  lmHead: z.strictObject({
    module: z.string(),
    weights: z.array(weightUseSchema),
    scale: z.number(),
    softcap: numberOrNull,
  } satisfies Shape<LmHead>),
} satisfies Shape<ModelCode>);

export const modelSchema = z.strictObject({
  kind: z.literal('model'),
  family: word,
  numLayers: positive,
  hiddenSize: positive,
  numHeads: positive,
  numKvHeads: positive,
  headDim: positive,
  vocabSize: positive,
  tieWordEmbeddings: z.boolean(),
  windows: z.array(positive.nullable()),
  code: modelCodeSchema,
  hfConfig: foreignObject,
  lora: option(foreignObject),
} satisfies Shape<ModelSpec>);

const forcedLayerSchema = z.strictObject({
  layers: layerRange,
  keyValues: option(place),
  keyValueGradients: option(place),
  attentionOutput: option(outputPlace),
  rebuiltOutput: option(outputPlace),
  internals: option(outputPlace),
  rebuildsLast: option(z.boolean()),
  checkpoints: option(place),
  backwardOrder: option(backwardOrder),
  segments: option(z.array(positive)),
} satisfies Shape<ForcedLayerStrategy>);

const forcedPlacesSchema = z.strictObject({
  hiddenGradients: option(place),
  layers: option(z.array(forcedLayerSchema)),
} satisfies Shape<ForcedPlaces>);

export const runSchema = z.strictObject({
  kind: z.literal('run'),
  seqLen: positive,
  paddedSeqLen: positive,
  rowTile: positive,
  sequenceParallelSize: positive,
  dataParallelSize: positive,
  policy,
  numChunks: option(positive),
  segmentLayers: option(positive),
  kvTileChunks: option(positive),
  numLossTiles: option(positive),
  numTokenTiles: option(positive),
  prefetchDepth: positive,
  headGroups: option(positive),
  hbmReserve: z.number().min(0).max(1),
  strategy: option(forcedPlacesSchema),
  attention: option(z.string()),
  kernels: option(kernelChoicesSchema),
  dtype: z.enum(MODEL_DTYPES),
  zeroStage: z.literal([0, 1, 2, 3]),
  gradientAccumulationSteps: positive,
  lossScale: z.number().positive(),
  numSteps: positive,
  seed: count,
  packing: option(z.literal(true)),
  evaluate: option(z.boolean()),
} satisfies Shape<RunSpec>);

const layerStrategySchema = z.strictObject({
  layers: layerRange,
  keyValues: place,
  keyValueGradients: place,
  attentionOutput: outputPlace,
  rebuiltOutput: option(outputPlace),
  internals: option(outputPlace),
  rebuildsLast: option(z.boolean()),
  checkpoints: place,
  backwardOrder,
  segments: z.array(positive),
} satisfies Shape<LayerStrategy>);

export const strategySchema = z.strictObject({
  kind: z.literal('strategy'),
  policy,
  numChunks: positive,
  chunkTokens: positive,
  localChunkTokens: positive,
  kvTileChunks: positive,
  numLossTiles: positive,
  numTokenTiles: positive,
  prefetchDepth: positive,
  headGroups: option(positive),
  hiddenGradients: place,
  layers: z.array(layerStrategySchema).min(1),
} satisfies Shape<Strategy>);

const parameterViewSchema = z.strictObject({
  name: z.string(),
  shape: z.array(positive),
  offset: count,
  numel: positive,
  trainable: z.boolean(),
} satisfies Shape<ParameterView>);

const layerParametersSchema = z.strictObject({
  weights: z.array(parameterViewSchema),
  numElements: count,
} satisfies Shape<LayerParameters>);

export const parametersSchema = z.strictObject({
  layers: z.array(layerParametersSchema),
  head: z.array(parameterViewSchema),
  embed: z.array(parameterViewSchema),
  numHeadNormElements: count,
  numHeadElements: count,
  numEmbedElements: count,
  numModelParameters: count,
  numTrainedParameters: count,
} satisfies Shape<ParameterTable>);

const headLists = z.array(z.array(z.int().min(-1)));

export const layoutSchema = z.strictObject({
  sequenceGroups: z.array(z.array(count)),
  heads: z.strictObject({ query: headLists, keyValue: headLists } satisfies Shape<HeadMap>),
} satisfies Shape<ParallelLayout>);
