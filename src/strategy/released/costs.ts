/** Prices of what released programs do, by the same rates as a plan's ops: named terms of one optimizer step. */
import { maskPairs } from '../../catalog/ops/index.js';
import { kernelRate } from '../../catalog/kernelChoice.js';
import { PAGEABLE_SLOWDOWN } from '../../predict/cost.js';
import { exchangeSeconds } from '../../predict/links.js';
import { optimizerSeconds, zeroCosts } from '../../predict/zeroCosts.js';
import { DTYPE_BYTES } from '../../spec/dtype.js';
import type { Part } from './layerShape.js';
import type { ReleasedSetting } from './setting.js';

/** Of one optimizer step and rank. */
export interface TimeTerm {
  readonly name: string;
  readonly seconds: number;
  /** The formula, or where in the program it is. */
  readonly note: string;
}

/** What a rank does in one micro-step, of all layers together. */
export interface MicroStep {
  readonly terms: readonly TimeTerm[];
  readonly kernels: number;
  /** Of all products and of attention, recompute included, as they are executed. */
  readonly productFlops: number;
  readonly attentionFlops: number;
}

/** Backward of attention does five products where forward does two (FlashAttention-2). */
export const BACKWARD_ATTENTION = 2.5;

export function term(name: string, seconds: number, note: string): TimeTerm {
  return { name, seconds, note };
}

/** Of a layer in a step: a checkpointed layer runs again in backward. */
export function forwards({ options }: ReleasedSetting): number {
  return options.checkpoints === 'none' ? 1 : 2;
}

/** FLOPs of attention forward in all layers, of a rank's own heads. */
export function attentionFlops({ model, tokens, sizes }: ReleasedSetting): number {
  const all = { start: 0, end: tokens };
  const pairs = (window: number | null): number => maskPairs(window === null ? { kind: 'causal' } : { kind: 'window', window }, all, all);
  return 4 * sizes.ownQ * model.windows.reduce<number>((sum, window) => sum + pairs(window), 0);
}

/** `queries` begin a kernel's tile of keys, in all of its calls together. */
export function attentionSeconds(flops: number, queries: number, setting: ReleasedSetting, direction: 'forward' | 'backward'): number {
  const { cluster, kernel, sizes } = setting;
  const { rates } = cluster;
  const rate = kernelRate(kernel, sizes.d, rates);
  const begun = flops + 4 * sizes.ownQ * rates.attentionHalfKeys * queries;
  if (direction === 'forward') return begun / (rate?.forwardFlops ?? rates.attentionForwardFlops);
  return (BACKWARD_ATTENTION * begun) / (rate?.backwardFlops ?? rates.attentionBackwardFlops);
}

/** `times` products of a part for `rows` tokens, in `tiles` pieces that each read the weights. */
export function productSeconds(
  part: Part,
  rows: number,
  times: number,
  tiles: number,
  { cluster: { rates }, sizes }: ReleasedSetting,
): number {
  return (times * part.flops * rows) / rates.matmulFlops + (times * tiles * sizes.w * part.weightElements) / rates.memoryBytes;
}

export function trafficSeconds(bytes: number, { cluster: { rates } }: ReleasedSetting): number {
  return bytes / rates.memoryBytes;
}

/** One all-to-all of `elements` a row of all ranks' heads, in messages of their own. */
export function exchange(bytes: number, messages: number, { cluster, layout }: ReleasedSetting): number {
  return exchangeSeconds(bytes, messages, cluster, layout);
}

/** Bytes to the host and back, in copies that nothing runs beside. */
export function waitedCopySeconds(bytes: number, pinned: boolean, { cluster: { rates } }: ReleasedSetting): number {
  return bytes * (pinned ? 1 : PAGEABLE_SLOWDOWN) * (1 / rates.d2hBytes + 1 / rates.h2dBytes);
}

/** Seconds in which one thread of the host writes so many bytes: those of a pageable copy, which it makes too; assumed. */
export function hostWriteSeconds(bytes: number, { cluster: { rates } }: ReleasedSetting): number {
  return (bytes * PAGEABLE_SLOWDOWN) / rates.d2hBytes;
}

/** Everything of a step: micro-steps, what the host and ZeRO add to them, and the step's end. */
export function stepTerms(micro: MicroStep, setting: ReleasedSetting, ends: readonly TimeTerm[] = stepEnd(setting)): readonly TimeTerm[] {
  const { cluster, run } = setting;
  const { rates } = cluster;
  const times = run.gradientAccumulationSteps;
  const launches = term('launches', micro.kernels * rates.launchSeconds, 'kernels * launchSeconds');
  const device = [...micro.terms, launches].reduce((sum, { seconds }) => sum + seconds, 0);
  const issued = micro.kernels * rates.hostSecondsPerKernel;
  const beside = [
    term('host issue', Math.max(0, issued - device), 'kernels * hostSecondsPerKernel, beyond what the device takes'),
    term('ZeRO, exposed', zeroSeconds(device, setting), 'gathers forward and backward and reductions, beyond what the device takes'),
  ];
  const each = [...micro.terms, launches, ...beside].map((one) => ({ ...one, seconds: times * one.seconds }));
  return [...each, ...ends].filter(({ seconds }) => seconds > 0);
}

function stepEnd(setting: ReleasedSetting): readonly TimeTerm[] {
  const zero = setting.run.zeroStage < 2 ? zeroCosts(setting).seconds('reduce', { module: 'end' }) : 0;
  return [
    term('optimizer step', zero + optimizerSeconds(setting), 'parameters that train / ranks at the rate of where the optimizer is'),
    term('step overhead', setting.cluster.rates.stepOverheadSeconds, "DeepSpeed's own, outside of all else"),
  ];
}

/** Weights of every module are gathered forward and backward; where they are on the host, a rank's share is copied first. */
function zeroSeconds(device: number, setting: ReleasedSetting): number {
  const { model, options, parameters, cluster, run, sizes } = setting;
  const zero = zeroCosts(setting);
  const modules = [
    ...model.code.classOf.map((_, layer) => ({ module: 'layer' as const, layer })),
    { module: 'embed' as const },
    { module: 'head' as const },
  ];
  const sum = (kind: 'gather' | 'reduce'): number => modules.reduce((total, module) => total + zero.seconds(kind, module), 0);
  const share = (sizes.w * parameters.numModelParameters) / cluster.numRanks;
  const fetched = options.offloadWeights ? (share * PAGEABLE_SLOWDOWN) / cluster.rates.h2dBytes : 0;
  const gathers = 2 * (sum('gather') + fetched);
  const reductions = run.zeroStage < 2 ? 0 : sum('reduce');
  const beside = (zero.overlaps('gather') ? gathers : 0) + (zero.overlaps('reduce') ? reductions : 0);
  return gathers + reductions - beside + Math.max(0, beside - device);
}

/** Of a row of logits over the whole vocabulary. */
export function logitsPart({ model }: ReleasedSetting): Part {
  const elements = model.hiddenSize * model.vocabSize;
  return { flops: 2 * elements, weightElements: elements };
}

/** Bytes of a rank's hidden states, [rows, hidden size] in the model dtype. */
export function hiddenBytes({ rows, sizes, model }: ReleasedSetting): number {
  return rows * sizes.w * model.hiddenSize;
}

/** Of all checkpoints of layers together. */
export function checkpointBytes(setting: ReleasedSetting): number {
  return setting.model.numLayers * hiddenBytes(setting);
}

export const WIDE = DTYPE_BYTES.float32;
