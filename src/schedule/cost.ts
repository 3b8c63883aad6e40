/**
 * Seconds of an op on its own stream: max(flops / achieved rate, bytes / bandwidth) + launch.
 *
 * On a `cpu` cluster one thread executes all streams, so nothing overlaps and a section takes the sum of its ops; on
 * `cuda` the streams run side by side, and copies of both directions share the link where `duplexBytes` says so.
 */
import { DTYPE_BYTES } from '../spec/dtype.js';
import type { ClusterSpec, ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';
import type { Buffer } from './buffer.js';
import { rowBytes } from './legality.js';
import type { Access, Op } from './op.js';
import type { CostModel } from './simulate.js';

/** Work of a compute op, from the catalog: floating-point operations, and bytes that its kernels read and write. */
export interface OpWork {
  readonly flops: (op: Op) => number;
  readonly bytes: (op: Op) => number;
}

export interface CostInput {
  readonly model: ModelSpec;
  readonly run: RunSpec;
  readonly cluster: ClusterSpec;
  readonly parameters: ParameterTable;
  readonly buffers: readonly Buffer[];
  readonly work: OpWork;
}

export function costModel(input: CostInput): CostModel {
  const { h2dBytes, d2hBytes, duplexBytes } = input.cluster.rates;
  return {
    seconds: (op) => opSeconds(op, input),
    serial: input.cluster.device === 'cpu',
    duplexSlowdown: duplexBytes > 0 ? Math.max(1, (h2dBytes + d2hBytes) / duplexBytes) : 1,
  };
}

function opSeconds(op: Op, input: CostInput): number {
  if (op.kind === 'release') return 0;
  return input.cluster.rates.launchSeconds + workSeconds(op, input);
}

function workSeconds(op: Op, input: CostInput): number {
  const { rates } = input.cluster;
  switch (op.kind) {
    case 'loadBatch':
      return viewBytes(op.writes, input.buffers) / rates.h2dBytes;
    case 'fetch':
      return viewBytes(op.writes, input.buffers) / rates.h2dBytes;
    case 'offload':
      return viewBytes(op.reads, input.buffers) / rates.d2hBytes;
    case 'toHeads':
    case 'toSequence':
      return exchangeSeconds(viewBytes(op.reads, input.buffers), input);
    case 'gather':
      return gatherSeconds(input.parameters.numLayerElements, input);
    case 'reduce':
      return reduceSeconds(input);
    case 'optimizerStep':
      return optimizerSeconds(input);
    default:
      return Math.max(input.work.flops(op) / flopRate(op, input), input.work.bytes(op) / rates.memoryBytes);
  }
}

function flopRate({ kind }: Op, { cluster: { rates } }: CostInput): number {
  if (kind === 'attn') return rates.attentionForwardFlops;
  return kind === 'attnBwd' ? rates.attentionBackwardFlops : rates.matmulFlops;
}

/** Bytes of views in their buffers. */
export function viewBytes(views: readonly Access[], buffers: readonly Buffer[]): number {
  let bytes = 0;
  for (const { buffer, rows } of views) bytes += (rows.end - rows.start) * rowBytes(buffers[buffer] as Buffer);
  return bytes;
}

/** All-to-all over the sequence group: a rank keeps 1/P of its bytes. Without a group it is a copy in memory. */
function exchangeSeconds(bytes: number, { run: { sequenceParallelSize: ranks }, cluster: { rates } }: CostInput): number {
  if (ranks === 1) return (2 * bytes) / rates.memoryBytes;
  return rates.commLatencySeconds + (bytes * (ranks - 1)) / ranks / rates.commBytes;
}

/** Seconds of one ZeRO-3 gather of `elements` weights: a ring all-gather sends (N - 1) / N of them. */
export function gatherSeconds(elements: number, input: CostInput): number {
  return input.run.zeroStage < 3 ? 0 : ringSeconds(elements * DTYPE_BYTES[input.run.dtype], input);
}

/** Weight gradients of one optimizer step: reduce-scatter every micro-step in stages 2 and 3, once in stage 1, an all-reduce in stage 0. */
function reduceSeconds(input: CostInput): number {
  const { zeroStage, gradientAccumulationSteps, dtype } = input.run;
  const once = ringSeconds(input.parameters.numModelParameters * DTYPE_BYTES[dtype], input);
  if (zeroStage === 0) return 2 * once;
  return zeroStage === 1 ? once : gradientAccumulationSteps * once;
}

/** The update of the owned parameters, and in stages 1 and 2 the all-gather of what the others updated. */
function optimizerSeconds(input: CostInput): number {
  const { zeroStage, dtype } = input.run;
  const { numModelParameters } = input.parameters;
  const owned = zeroStage === 0 ? numModelParameters : numModelParameters / input.cluster.numRanks;
  const update = owned * input.cluster.rates.optimizerSecondsPerParameter;
  return zeroStage === 1 || zeroStage === 2 ? update + ringSeconds(numModelParameters * DTYPE_BYTES[dtype], input) : update;
}

function ringSeconds(bytes: number, { cluster: { numRanks, rates } }: CostInput): number {
  if (numRanks === 1) return 0;
  return rates.commLatencySeconds + (bytes * (numRanks - 1)) / numRanks / rates.commBytes;
}
