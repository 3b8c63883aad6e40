/**
 * Bytes of weights, gradients and optimizer states of one rank under DeepSpeed 0.19.8, by ZeRO stage: what is there all the
 * time, and what each instant of a step adds. Formulas are those that reproduce DeepSpeed's own engine traced at full scale
 * (Llama-3-8B, 4 and 64 ranks), to a few per cent; they are cited by their terms in bytes per parameter.
 */
import { DTYPE_BYTES } from '../spec/dtype.js';
import type { DeepSpeedConfig, ParameterTable, ParameterView, RunSpec } from '../spec/types.js';
import { INSTANTS, type InstantName, type MemoryItem } from './items.js';
import { type ZeroSettings, zeroSettings } from './zeroSettings.js';

export interface PoolItems {
  readonly hbm: readonly MemoryItem[];
  readonly host: readonly MemoryItem[];
}

export interface ModelStates extends PoolItems {
  readonly instants: Readonly<Record<InstantName, readonly MemoryItem[]>>;
}

export interface ModelStatesInput {
  readonly parameters: ParameterTable;
  readonly numLayers: number;
  readonly tieWordEmbeddings: boolean;
  readonly run: RunSpec;
  /** Ranks that ZeRO shards over: all of them, replicas times sequence parallel ranks. */
  readonly numRanks: number;
  readonly deepspeed: DeepSpeedConfig;
}

export function modelStates(input: ModelStatesInput): ModelStates {
  const terms = termsOf(input);
  const stage = terms.zero.stage;
  const { hbm, host } = stage === 0 ? unsharded(terms) : stage === 3 ? fullySharded(terms) : shardedStates(terms);
  const perInstant = (name: InstantName): readonly MemoryItem[] => [
    ...(stage === 0 ? unshardedInstant(name, terms) : stage === 3 ? fullyShardedInstant(name, terms) : shardedInstant(name, terms)),
    ...tiedGradient(name, terms),
  ];
  const instants = Object.fromEntries(INSTANTS.map((name) => [name, nonEmpty(perInstant(name))] as const)) as Record<
    InstantName,
    readonly MemoryItem[]
  >;
  return { hbm: nonEmpty(hbm), host: nonEmpty(host), instants };
}

interface Terms extends ModelStatesInput {
  readonly zero: ZeroSettings;
  /** Parameters of the model and of one rank's share. */
  readonly all: number;
  readonly owned: number;
  /** Bytes of a weight, and of an accumulated gradient. */
  readonly w: number;
  readonly g: number;
  readonly largest: number;
}

function termsOf(input: ModelStatesInput): Terms {
  const { parameters, run, numRanks } = input;
  const zero = zeroSettings(input.deepspeed);
  const w = DTYPE_BYTES[run.dtype];
  const views = [...parameters.layer, ...parameters.head, ...parameters.embed];
  const all = parameters.numModelParameters;
  return {
    ...input,
    zero,
    all,
    owned: Math.ceil(all / numRanks),
    w,
    g: zero.accumulateInFp32 ? 4 : w,
    largest: Math.max(...views.map(({ numel }) => numel)),
  };
}

function item(name: string, bytes: number, note: string): MemoryItem {
  return { name, bytes: Math.ceil(bytes), provenance: 'derived', note };
}

const nonEmpty = (items: readonly MemoryItem[]): readonly MemoryItem[] => items.filter(({ bytes }) => bytes > 0);

/** Stage 0: 14 B a parameter in bf16 (2 weight, 4 master, 8 Adam), 12 in fp32. */
function unsharded({ all, w }: Terms): PoolItems {
  return {
    hbm: [
      item('weights', w * all, `${w} B * parameters`),
      item('master weights', w < 4 ? 4 * all : 0, '4 B * parameters'),
      item('Adam states', 8 * all, '8 B * parameters'),
    ],
    host: [],
  };
}

/** Gradients from the loss on; the step of the bf16 optimizer adds flat fp32 gradients and Adam's temporaries (16 -> 24 B). */
function unshardedInstant(name: InstantName, { all, w, parameters }: Terms): readonly MemoryItem[] {
  const elements = name === 'loss' ? parameters.numHeadElements : isBackward(name) || name === 'optimizerStep' ? all : 0;
  const step = name === 'optimizerStep' ? (w < 4 ? 8 : 4) * all : 0;
  return [item('gradients', w * elements, `${w} B * parameters`), item('optimizer temporaries', step, `${w < 4 ? 8 : 4} B * parameters`)];
}

/** Stages 1 and 2: weights whole, 12 B of master and Adam sharded; on the host with offload_optimizer (18 B in bf16). */
function shardedStates(terms: Terms): PoolItems {
  const { all, owned, w, zero, largest } = terms;
  const weights = item('weights', w * all, `${w} B * parameters`);
  const states = [
    item('master weights', 4 * owned, '4 B * parameters / ranks'),
    item('Adam states', 8 * owned, '8 B * parameters / ranks'),
  ];
  const accumulated = item('fp32 gradients', accumulatesWide(terms) ? 4 * all : 0, '4 B * parameters: stage 1 accumulating in fp32');
  if (!zero.offloadOptimizer) return { hbm: [weights, accumulated, ...states], host: [] };
  return {
    hbm: [weights, accumulated, item('gradient buffer for the host', w * largest, `${w} B * largest parameter`)],
    host: [...states, ...hostGradients({ owned, w }), item('largest gradient', w * largest, `${w} B * largest parameter`)],
  };
}

function hostGradients({ owned, w }: Pick<Terms, 'owned' | 'w'>): readonly MemoryItem[] {
  return [
    item('fp32 gradients', 4 * owned, '4 B * parameters / ranks'),
    item('pinned gradients', w * owned, `${w} B * parameters / ranks`),
  ];
}

/** Stage 1 keeps all gradients to the end of backward, stage 2 its share and the largest parameter's. */
function shardedInstant(name: InstantName, terms: Terms): readonly MemoryItem[] {
  const { all, owned, w, g, zero, largest, parameters } = terms;
  const backward = isBackward(name) || name === 'loss';
  const step = name === 'optimizerStep';
  if (!backward && !step) return [];
  if (accumulatesWide(terms)) return wideInstant(name, terms);
  const buckets = zero.overlapComm ? 2 : 1;
  const stage1 = (name === 'loss' ? parameters.numHeadElements : all) * w;
  const onDevice = !zero.offloadOptimizer;
  return [
    item('reduce buckets', backward ? buckets * w * zero.reduceBucketElements : 0, `${buckets} * ${w} B * reduce_bucket_size`),
    item(
      zero.stage === 1 ? 'gradients' : 'gradient of the largest parameter',
      !backward ? 0 : zero.stage === 1 ? stage1 : w * largest,
      zero.stage === 1 ? `${w} B * parameters` : `${w} B * largest parameter`,
    ),
    item(
      'averaged gradients',
      onDevice ? g * owned + g * largest : 0,
      `${g} B * (parameters / ranks + the parameter cut by the partition)`,
    ),
    item('optimizer temporaries', step && onDevice ? 6 * owned : 0, '6 B * parameters / ranks'),
  ];
}

/** Stage 1 accumulating bf16 gradients in fp32 is another class (BF16_Optimizer): 6 + 12/N B idle, 10 at most, 8 at the step. */
function accumulatesWide({ zero, w }: Terms): boolean {
  return zero.stage === 1 && zero.accumulateInFp32 && w < 4;
}

function wideInstant(name: InstantName, { all, w, parameters }: Terms): readonly MemoryItem[] {
  const elements = name === 'loss' ? parameters.numHeadElements : all;
  const copies = name === 'optimizerStep' ? 1 : 2;
  return [item('gradients', copies * w * elements, `${copies} * ${w} B * parameters`)];
}

/** Stage 3: everything sharded; the reduce bucket is held for life, and small weights stay whole. */
function fullySharded(terms: Terms): PoolItems {
  const { owned, w, g, zero } = terms;
  const states = [
    item('master weights', 4 * owned, '4 B * parameters / ranks'),
    item('Adam states', 8 * owned, '8 B * parameters / ranks'),
  ];
  const hbm = [
    item('weight shard', w * owned, `${w} B * parameters / ranks`),
    item('persistent small weights', w * persistentElements(terms), `${w} B * weights below stage3_param_persistence_threshold`),
    item('reduce bucket', w * zero.reduceBucketElements, `${w} B * reduce_bucket_size`),
  ];
  if (zero.offloadOptimizer) return { hbm, host: [...states, ...hostGradients(terms)] };
  return { hbm: [...hbm, item('gradient shard', g * owned, `${g} B * parameters / ranks`), ...states], host: [] };
}

function persistentElements({ parameters, numLayers, zero }: Terms): number {
  const small = (views: readonly ParameterView[]): number =>
    views.reduce((sum, { numel }) => sum + (numel < zero.persistenceThreshold ? numel : 0), 0);
  return numLayers * small(parameters.layer) + small(parameters.head) + small(parameters.embed);
}

function fullyShardedInstant(name: InstantName, terms: Terms): readonly MemoryItem[] {
  const { all, owned, w, g, zero, largest } = terms;
  if (name === 'optimizerStep') {
    const each = w < 4 && g < 4 ? 6 : 4;
    const bytes = zero.offloadOptimizer ? 0 : each * Math.min(zero.subGroupElements, owned);
    return [item('optimizer temporaries', bytes, `${each} B * min(sub_group_size, parameters / ranks)`)];
  }
  const gathered = Math.min(all, zero.maxLiveElements + neededElements(name, terms));
  const reduced = name === 'loss' || name === 'gradientReduce' ? largest : name === 'layerBackward' ? terms.parameters.numLayerElements : 0;
  return [
    item('gathered weights', w * gathered, `${w} B * min(parameters, stage3_max_live_parameters + those of the module at work)`),
    item('gradients being reduced', w * reduced, `${w} B * parameters of the module`),
  ];
}

/** A segment of several layers gathers the layer it reruns beside the one that ZeRO has gathered. */
function neededElements(name: InstantName, { parameters, run }: Terms): number {
  if (name === 'embed' || name === 'gradientReduce') return parameters.numEmbedElements;
  if (name === 'loss') return parameters.numHeadElements;
  return parameters.numLayerElements * (name === 'layerBackward' && run.segmentLayers > 1 ? 2 : 1);
}

/** Autograd holds lm_head's gradient of a tied weight until the embedding adds its own. */
function tiedGradient(name: InstantName, { tieWordEmbeddings, parameters, w, zero }: Terms): readonly MemoryItem[] {
  const held = tieWordEmbeddings && zero.stage >= 2 && isBackward(name);
  return [item('tied gradient of lm_head', held ? w * parameters.numEmbedElements : 0, `${w} B * embedding`)];
}

function isBackward(name: InstantName): boolean {
  return name === 'layerBackward' || name === 'gradientReduce';
}
