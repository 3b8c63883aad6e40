/** What the formulas of model states are written in. */
import { numTrainedElements } from '../catalog/parameters.js';
import { secondaryGroupSize } from '../spec/deepspeedSecondary.js';
import { DTYPE_BYTES } from '../spec/dtype.js';
import type { ClusterSpec, DeepSpeedConfig, ParameterTable, ParameterView, RunSpec } from '../spec/types.js';
import type { InstantName, MemoryItem } from './items.js';
import { type ZeroSettings, zeroSettings } from './zeroSettings.js';

/** Items by the kind of pool they are in: DeepSpeed knows the device and the host. */
export interface StateItems {
  readonly device: readonly MemoryItem[];
  readonly pinned: readonly MemoryItem[];
  /** On a disk, which stage 3 alone has. */
  readonly file?: readonly MemoryItem[];
}

export interface ModelStatesInput {
  readonly parameters: ParameterTable;
  /** Class of each layer. */
  readonly classOf: readonly number[];
  readonly tieWordEmbeddings: boolean;
  readonly run: Pick<RunSpec, 'dtype' | 'gradientAccumulationSteps'>;
  /** Ranks that ZeRO shards over: all of them, replicas times sequence parallel ranks. */
  readonly numRanks: number;
  readonly device: ClusterSpec['device'];
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
  /** Shares of the weights that a rank has in a second partition, of its own and of ranks of other groups; 0 without one (hpZ). */
  readonly secondShares: number;
  /** Bytes of a weight, of an accumulated gradient, and of one on its way to other ranks. */
  readonly w: number;
  readonly g: number;
  readonly c: number;
  /** Gradients travel in another dtype than the weights have. */
  readonly converts: boolean;
  /** Elements of the largest parameter that trains. */
  readonly largest: number;
  /**
   * Parameters whose gradients are there after the loss: those of the head, and of all that train where an earlier micro-step formed
   * them.
   */
  readonly afterLoss: number;
}

/** Bytes a parameter of an update by torch's optimizers, fp32 gradients included. DeepSpeed's own have no such temporaries. */
export function torchStepBytes({ zero }: Pick<Terms, 'zero'>): number {
  return 4 + zero.optimizer.updateBytes;
}

export function termsOf(input: ModelStatesInput): Terms {
  const { parameters, run, numRanks } = input;
  const zero = zeroSettings(input.deepspeed);
  const w = DTYPE_BYTES[run.dtype];
  const communicationDtype = zero.communicationDtype ?? run.dtype;
  const { numModelParameters: all, numTrainedParameters: trained } = parameters;
  return {
    ...input,
    zero,
    all,
    trained,
    ownedAll: Math.ceil(all / numRanks),
    owned: Math.ceil(trained / numRanks),
    secondShares: numRanks / (secondaryGroupSize(input.deepspeed, numRanks) ?? Infinity),
    w,
    g: zero.accumulateInFp32 ? 4 : w,
    c: DTYPE_BYTES[communicationDtype],
    converts: communicationDtype !== run.dtype,
    largest: Math.max(...[...parameters.layers.map(({ weights }) => weights), parameters.head, parameters.embed].map(largestOf)),
    afterLoss: run.gradientAccumulationSteps > 1 ? trained : numTrainedElements(parameters.head),
  };
}

/** Of those that train. */
export function largestOf(views: readonly ParameterView[]): number {
  return views.reduce((most, { numel, trainable }) => (trainable ? Math.max(most, numel) : most), 0);
}

/**
 * What PyTorch takes for a pinned tensor: its pinned allocator rounds every block up to a power of two (CachingHostAllocator; vllm issue
 * 53042, sglang issue 36562). The CPU device pins nothing.
 */
export function pinnedBytes(bytes: number, { device, zero }: Pick<Terms, 'device' | 'zero'>): number {
  return device === 'cuda' && zero.pinOptimizer ? blockBytes(bytes) : bytes;
}

function blockBytes(bytes: number): number {
  return bytes > 0 ? 2 ** Math.ceil(Math.log2(bytes)) : 0;
}

/**
 * Host bytes of a rank's weights under offload_param: those that train in one block (`_create_param_groups_fp16_flat_cpu_memory`,
 * zero/stage3.py). Each was a pinned block of its own before, up to twice its size, which PyTorch keeps; others still are.
 */
export function offloadedWeightBytes({ w, ownedAll, owned, device, zero }: Terms): number {
  if (device !== 'cuda' || zero.offloadWeights !== 'pinned') return w * ownedAll;
  return blockBytes(w * owned) + 2 * w * ownedAll;
}

/**
 * Bytes of a rank's part of a second partition (`_partition_param_sec`, zero/partition_parameters.py). It is there from the first share on
 * and until the first update, which drops what trains; backward makes it again. On the host each part is a pinned block of its own, of up
 * to twice its size.
 */
export function secondPartitionBytes(ownedElements: number, { w, secondShares, device, zero }: Terms): number {
  return (device === 'cuda' && zero.offloadWeights === 'pinned' ? 2 : 1) * w * secondShares * ownedElements;
}

/** Weights are copied to the device for every gather. On the CPU device nothing moves but what is read from a disk. */
export function fetchesWeights({ device, zero }: Pick<Terms, 'device' | 'zero'>): boolean {
  return (device === 'cuda' && zero.offloadWeights !== undefined) || zero.weightsDisk !== undefined;
}

export function isBackward(name: InstantName): boolean {
  return name === 'layerBackward' || name === 'gradientReduce';
}

/** A rank's elements of weights that are sharded one by one, each padded to the ranks (`_aligned_size`, zero/partition_parameters.py). */
export function shardOf(views: readonly ParameterView[], numRanks: number): number {
  return views.reduce((sum, { numel }) => sum + Math.ceil(numel / numRanks), 0);
}

/** A sum over all weights of the model, of which layers of a class have the same. */
export function overModel(
  { parameters: { embed, layers, head }, classOf }: Terms,
  of: (views: readonly ParameterView[]) => number,
): number {
  const ofClass = layers.map(({ weights }) => of(weights));
  return classOf.reduce((sum, kind) => sum + (ofClass[kind] ?? 0), of(embed) + of(head));
}

/**
 * Stage 1 accumulating bf16 gradients in fp32 is another class (BF16_Optimizer): 6 + 12/N B idle, 10 at most, 8 at the step. fp16
 * stays with the class of stages 1 and 2, which then keeps each gradient as an fp32 `grad_accum` of its weight instead.
 */
export function accumulatesWide({ zero, run }: Pick<Terms, 'zero' | 'run'>): boolean {
  return zero.stage === 1 && zero.accumulateInFp32 && run.dtype === 'bfloat16' && !zero.offloadOptimizer;
}

/** Stages 1 and 2 add up fp32 gradients of other weights in one tensor of the partition's size; else those of its weights are kept whole. */
export function isCompact({ zero, w }: Pick<Terms, 'zero' | 'w'>): boolean {
  return zero.accumulateInFp32 && w < 4;
}
