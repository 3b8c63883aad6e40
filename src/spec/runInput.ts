/** What a user asks for, before defaults are filled in. */
import * as z from 'zod';
import { count } from './count.js';
import { MODEL_DTYPES, type ModelDtype } from './dtype.js';
import { type KernelChoices, kernelChoicesSchema } from './kernelChoices.js';
import { type JsonObject, parseWith } from './parseJson.js';
import { ALL_POLICIES, type AnyPolicy } from './releasedPrograms.js';

export const runInputSchema = z.strictObject({
  seqLen: z.union([z.number(), z.string()]),
  sequenceParallelSize: count.optional(),
  dataParallelSize: count.optional(),
  policy: z.enum(ALL_POLICIES).optional(),
  released: z.union([z.string(), z.looseObject({})]).optional(),
  numChunks: count.optional(),
  segmentLayers: count.optional(),
  kvTileChunks: count.optional(),
  numLossTiles: count.optional(),
  numTokenTiles: count.optional(),
  prefetchDepth: count.optional(),
  headGroups: count.optional(),
  hbmReserve: z.union([z.number(), z.string()]).optional(),
  strategy: z.union([z.string(), z.looseObject({})]).optional(),
  attention: z.string().min(1).optional(),
  kernels: z.union([z.string(), kernelChoicesSchema]).optional(),
  dtype: z.enum(MODEL_DTYPES).optional(),
  freeze: z.array(z.string().min(1)).optional(),
  lora: z.union([z.string(), z.looseObject({})]).optional(),
  lossScale: z.number().positive().optional(),
  ropeTheta: z.number().positive().optional(),
  ropeScaling: z.string().min(1).optional(),
  numSteps: count.optional(),
  seed: z.int().min(0).optional(),
  packing: z.boolean().optional(),
  evaluate: z.boolean().optional(),
});

/** Every field but `seqLen` may be left out. `seqLen` is a number or text such as `2M`. */
export interface RunInput {
  readonly seqLen: number | string;
  readonly sequenceParallelSize?: number | undefined;
  readonly dataParallelSize?: number | undefined;
  /** A plan-only one is for planReleased, and refused where a run is planned. */
  readonly policy?: AnyPolicy | undefined;
  /** Of a plan-only policy, what of its program is switched: see ReleasedOptions (releasedPrograms.ts). */
  readonly released?: string | JsonObject | undefined;
  readonly numChunks?: number | undefined;
  /** Layers that share a checkpoint; the last segment may have fewer. */
  readonly segmentLayers?: number | undefined;
  /** Chunks of fetched keys and values that are attended to together. */
  readonly kvTileChunks?: number | undefined;
  /** Pieces that the loss of one chunk is computed in. */
  readonly numLossTiles?: number | undefined;
  /** Pieces that projections and the MLP of one chunk are computed in. */
  readonly numTokenTiles?: number | undefined;
  readonly prefetchDepth?: number | undefined;
  /** Groups that a rank's heads are attended to in, one after the other. */
  readonly headGroups?: number | undefined;
  /** Share of a GPU's memory to leave free: a number from 0 up to 1, or text such as `4%`, which it is when left out. */
  readonly hbmReserve?: number | string | undefined;
  /** Choices to be kept to, a ForcedStrategy (strategy.ts, strategyInput.ts) or the path of a JSON file with one. */
  readonly strategy?: string | JsonObject | undefined;
  /** Attention kernel by its catalog name. */
  readonly attention?: string | undefined;
  /** Kernels beside attention: `auto`, `plain`, or names by kind, as an object or as text: `norm=plain,merge=plain`. */
  readonly kernels?: string | KernelChoices | undefined;
  readonly dtype?: ModelDtype | undefined;
  /** Weights that do not train: names or patterns of them, `model.embed_tokens.weight`, `*.mlp.*`, `model.layers.[0-3].*`. */
  readonly freeze?: readonly string[] | undefined;
  /** peft's adapter_config.json, by path or as an object: adapters train, and nothing else. */
  readonly lora?: string | JsonObject | undefined;
  /**
   * Static scale of the loss, 1 when left out. Not for float16, whose scale is DeepSpeed's own (`fp16.loss_scale`;
   * CreateLossScaler in runtime/fp16/loss_scaler.py uses 1 for every other dtype): the worker sets this one through
   * the optimizer's `override_loss_scale`, or by itself where the engine has none.
   */
  readonly lossScale?: number | undefined;
  /** Base of the rotary embedding, in place of the config's. */
  readonly ropeTheta?: number | undefined;
  /** Scaling of the rotary embedding, e.g. `yarn:8` for eight times the length that the config's model was trained at. */
  readonly ropeScaling?: string | undefined;
  readonly numSteps?: number | undefined;
  readonly seed?: number | undefined;
  /** Batches may have several documents in a sequence, between which nothing attends, and a weight for the loss of each token; false when left out. */
  readonly packing?: boolean | undefined;
  /** Whether the plan has a program that evaluates, for runs with held-out data. */
  readonly evaluate?: boolean | undefined;
}

export function parseRunInput(input: unknown): RunInput {
  return parseWith(runInputSchema, input, 'run');
}
