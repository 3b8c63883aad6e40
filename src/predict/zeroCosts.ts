/** Seconds of what ZeRO does: of its hooks by kind and by the module of the turn they run in, and of its optimizer step. */
import type { OpKind } from '../catalog/ops/index.js';
import { layerParameters, numTrainedElements, numWeightElements } from '../catalog/parameters.js';
import { readShare, type WeightFacts, weightPlaces } from '../memory/weightsDisk.js';
import { type ZeroSettings, zeroSettings } from '../memory/zeroSettings.js';
import type { Turn } from '../schedule/program.js';
import { secondaryGroupSize } from '../spec/deepspeedSecondary.js';
import { DTYPE_BYTES } from '../spec/dtype.js';
import type { ParameterView } from '../spec/types.js';
import type { PredictInput } from './input.js';
import { ringSeconds } from './links.js';

type TurnShape = Pick<Turn, 'module' | 'layer'> & Partial<Pick<Turn, 'direction'>>;
type CostInput = Pick<PredictInput, 'model' | 'run' | 'cluster' | 'parameters' | 'deepspeed'>;

export interface ZeroCosts {
  /** Of an op that a hook runs in a turn. */
  readonly seconds: (kind: OpKind, turn: TurnShape) => number;
  /** Whether the kind runs beside the turn's own work, as far as that lasts. */
  readonly overlaps: (kind: OpKind) => boolean;
}

/**
 * ZeRO-3 gathers the next module while this one computes if it may prefetch, and reduces beside it if it overlaps communication;
 * the CPU device does one thing at a time.
 */
export function zeroCosts(input: CostInput): ZeroCosts {
  const zero = zeroSettings(input.deepspeed);
  const beside = input.cluster.device === 'cuda';
  return {
    seconds: (kind, turn) => {
      if (kind === 'gather') return gatherSeconds(gatheredElements(turn, input), input, turn.direction === 'backward');
      if (kind === 'reduce') return reduceSeconds(turn, input);
      if (kind === 'release') return releaseSeconds(input);
      throw new RangeError(`no hook of ZeRO's runs ${kind}`);
    },
    overlaps: (kind) => beside && ((kind === 'gather' && isAhead(input, zero)) || (kind === 'reduce' && zero.overlapComm)),
  };
}

/** What is read from a disk is gathered when it is needed. */
function isAhead(input: CostInput, zero: ZeroSettings): boolean {
  return zero.prefetchBucketElements > 0 && readShare(placeFacts(input)) === 0;
}

/** Seconds of one ZeRO-3 gather of `elements` weights; `isLater`: after the forward of the step's first micro-step. */
export function gatherSeconds(elements: number, input: CostInput, isLater: boolean): number {
  if (input.run.zeroStage < 3) return 0;
  const { cluster, run } = input;
  const bytes = elements * DTYPE_BYTES[run.dtype];
  // By then ranks have a second partition, where they are to have one.
  const numRanks = (isLater ? secondaryGroupSize(input.deepspeed, cluster.numRanks) : undefined) ?? cluster.numRanks;
  const fetched = fetchesWeights(input) ? bytes / numRanks / cluster.rates.h2dBytes : 0;
  // Counted as if every gather read as much of its weights as the whole step does.
  const share = readShare(placeFacts(input));
  const read = share === 0 ? 0 : (share * bytes) / numRanks / cluster.rates.diskReadBytes;
  return cluster.rates.zeroGatherSeconds + fetched + read + ringSeconds(bytes, { ...cluster, numRanks }, 'gatherBytes');
}

function placeFacts({ parameters, model, cluster, run, deepspeed }: CostInput): WeightFacts {
  const { numRanks } = cluster;
  return { parameters, classOf: model.code.classOf, numRanks, w: DTYPE_BYTES[run.dtype], zero: zeroSettings(deepspeed) };
}

/** Whether a rank's share of the weights comes from the host to be gathered (offload_param). On the CPU device nothing moves. */
function fetchesWeights({ cluster, deepspeed }: Pick<CostInput, 'cluster' | 'deepspeed'>): boolean {
  return zeroSettings(deepspeed).offloadWeights !== undefined && cluster.device === 'cuda';
}

/** Of a module's weights: nothing crosses a link. */
export function releaseSeconds({ run, cluster }: Pick<CostInput, 'run' | 'cluster'>): number {
  return run.zeroStage < 3 ? 0 : cluster.rates.zeroReleaseSeconds;
}

/** A tied lm_head is the embedding. */
function gatheredElements(turn: TurnShape, input: CostInput): number {
  const { model, parameters } = input;
  const tied = turn.module === 'head' && model.tieWordEmbeddings ? parameters.embed : [];
  return numWeightElements([...moduleWeights(turn, input), ...tied]);
}

function moduleWeights({ module, layer }: TurnShape, { model, parameters }: CostInput): readonly ParameterView[] {
  if (module === 'end') throw new RangeError('no hook of a module runs at the end of a step');
  return module === 'layer' ? layerParameters(parameters, model, layer ?? 0).weights : parameters[module];
}

/**
 * Weight gradients: reduce-scatter of a module's every micro-step in stages 2 and 3, of all at the end in stage 1, an all-reduce in
 * stage 0.
 */
function reduceSeconds(turn: TurnShape, input: CostInput): number {
  const elements = turn.module === 'end' ? input.parameters.numTrainedParameters : numTrainedElements(moduleWeights(turn, input));
  const { zeroReduceSeconds } = input.cluster.rates;
  const { communicationDtype = input.run.dtype } = zeroSettings(input.deepspeed);
  const once = ringSeconds(elements * DTYPE_BYTES[communicationDtype], input.cluster, 'reduceBytes');
  return zeroReduceSeconds + (input.run.zeroStage === 0 ? 2 * once : once + offloadSeconds(elements / input.cluster.numRanks, input));
}

/**
 * Of owned gradients on their way to an optimizer on the host, behind the reduction on its stream: in fp32 once a step; in stage 3
 * first, every micro-step, in the model dtype there and back (DeepSpeed 0.19.8, stage3.py, partition_grads). On the CPU device
 * nothing moves.
 */
function offloadSeconds(owned: number, { run, cluster, deepspeed }: CostInput): number {
  if (!isOffloaded({ cluster, deepspeed })) return 0;
  const { h2dBytes, d2hBytes } = cluster.rates;
  const written = zeroSettings(deepspeed).optimizerDisk === undefined ? 0 : DTYPE_BYTES.float32 / cluster.rates.diskWriteBytes;
  const perMicroStep = run.zeroStage === 3 ? DTYPE_BYTES[run.dtype] * (1 / d2hBytes + 1 / h2dBytes) : 0;
  return owned * (perMicroStep + (DTYPE_BYTES.float32 / d2hBytes + written) / run.gradientAccumulationSteps);
}

function isOffloaded({ cluster, deepspeed }: Pick<CostInput, 'cluster' | 'deepspeed'>): boolean {
  const { offloadOptimizer, stage } = zeroSettings(deepspeed);
  return offloadOptimizer && stage > 0 && cluster.device === 'cuda';
}

/** PyTorch's Adam on a CPU against DeepSpeed's: 1.39 s against 0.22 s for 1 billion parameters (ZeRO-Offload, arXiv 2101.06840). */
const TORCH_CPU_ADAM = 6;

/**
 * The update of the owned parameters, on the host where the optimizer is, with its weights' way back; and in stages 1 and 2 the
 * all-gather of what the others updated.
 */
export function optimizerSeconds(input: CostInput): number {
  const { zeroStage, dtype } = input.run;
  const { numTrainedParameters } = input.parameters;
  const owned = zeroStage === 0 ? numTrainedParameters : numTrainedParameters / input.cluster.numRanks;
  const perParameter = secondsPerParameter(input) + diskSecondsPerParameter(input);
  const update = input.cluster.rates.optimizerStepSeconds + owned * perParameter + weightsWrittenSeconds(input);
  const gathered = zeroStage === 1 || zeroStage === 2;
  return gathered ? update + ringSeconds(numTrainedParameters * DTYPE_BYTES[dtype], input.cluster, 'gatherBytes') : update;
}

/** Weight, states and gradient are read, weight and states written, one sub-group after the other and beside nothing. */
function diskSecondsPerParameter({ cluster: { rates }, deepspeed }: CostInput): number {
  const disk = zeroSettings(deepspeed).optimizerDisk;
  if (disk === undefined) return 0;
  return disk.bytesPerParameter / rates.diskReadBytes + (disk.bytesPerParameter - DTYPE_BYTES.float32) / rates.diskWriteBytes;
}

/** Updated weights, behind each sub-group's update. */
function weightsWrittenSeconds(input: CostInput): number {
  const places = weightPlaces(placeFacts(input));
  return places === undefined ? 0 : (DTYPE_BYTES[input.run.dtype] * places.writtenElements) / input.cluster.rates.diskWriteBytes;
}

function secondsPerParameter({ run, cluster, deepspeed }: CostInput): number {
  const { rates } = cluster;
  const isOnHost = fetchesWeights({ cluster, deepspeed });
  const w = DTYPE_BYTES[run.dtype];
  if (!isOffloaded({ cluster, deepspeed })) return rates.optimizerSecondsPerParameter + (isOnHost ? w / rates.d2hBytes : 0);
  const slowdown = zeroSettings(deepspeed).optimizer.isTorch ? TORCH_CPU_ADAM : 1;
  return slowdown * rates.offloadedOptimizerSecondsPerParameter + (isOnHost ? 0 : w / rates.h2dBytes);
}
