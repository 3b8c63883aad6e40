/** What the formulas of model states are written in. */
import { numTrainedElements } from '../catalog/parameters.js';
import { DTYPE_BYTES } from '../spec/dtype.js';
import type { DeepSpeedConfig, ParameterTable, ParameterView, RunSpec } from '../spec/types.js';
import type { InstantName, MemoryItem } from './items.js';
import { type ZeroSettings, zeroSettings } from './zeroSettings.js';

/** Items by the kind of pool they are in: DeepSpeed knows the device and the host. */
export interface StateItems {
  readonly device: readonly MemoryItem[];
  readonly pinned: readonly MemoryItem[];
}

export interface ModelStatesInput {
  readonly parameters: ParameterTable;
  /** Class of each layer. */
  readonly classOf: readonly number[];
  readonly tieWordEmbeddings: boolean;
  readonly run: Pick<RunSpec, 'dtype' | 'gradientAccumulationSteps'>;
  /** Ranks that ZeRO shards over: all of them, replicas times sequence parallel ranks. */
  readonly numRanks: number;
  readonly deepspeed: DeepSpeedConfig;
  /** See ScheduleUse. */
  readonly extraLayers: number;
}

export interface Terms extends ModelStatesInput {
  readonly zero: ZeroSettings;
  /** Parameters of the model, and those of them that train. */
  readonly all: number;
  readonly trained: number;
  /** One rank's share of each. */
  readonly ownedAll: number;
  readonly owned: number;
  /** Bytes of a weight, and of an accumulated gradient. */
  readonly w: number;
  readonly g: number;
  /** Elements of the largest parameter that trains. */
  readonly largest: number;
  /**
   * Parameters whose gradients are there after the loss: those of the head, and of all that train where an earlier micro-step formed
   * them.
   */
  readonly afterLoss: number;
}

/**
 * Bytes a parameter of an update by torch's Adam: fp32 gradients, and the root of the second moments twice (_single_tensor_adam in
 * torch/optim/adam.py: sqrt, then a division out of place). DeepSpeed's own optimizers have no such temporaries.
 */
export const TORCH_ADAM_STEP = 12;

export function termsOf(input: ModelStatesInput): Terms {
  const { parameters, run, numRanks } = input;
  const zero = zeroSettings(input.deepspeed);
  const w = DTYPE_BYTES[run.dtype];
  const { numModelParameters: all, numTrainedParameters: trained } = parameters;
  return {
    ...input,
    zero,
    all,
    trained,
    ownedAll: Math.ceil(all / numRanks),
    owned: Math.ceil(trained / numRanks),
    w,
    g: zero.accumulateInFp32 ? 4 : w,
    largest: largestOf([...parameters.layers.flatMap(({ weights }) => weights), ...parameters.head, ...parameters.embed]),
    afterLoss: run.gradientAccumulationSteps > 1 ? trained : numTrainedElements(parameters.head),
  };
}

/** Of those that train. */
export function largestOf(views: readonly ParameterView[]): number {
  return views.reduce((most, { numel, trainable }) => (trainable ? Math.max(most, numel) : most), 0);
}

export function isBackward(name: InstantName): boolean {
  return name === 'layerBackward' || name === 'gradientReduce';
}
