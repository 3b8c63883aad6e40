/** What an op costs alone: seconds on its stream, max(flops / achieved rate, bytes / bandwidth) + launch, and seconds of the host. */
import { numKernels, OP_ROWS, opSizes, type OpSizes, type OpWork, opWork, viewBytes } from '../catalog/ops/index.js';
import { numWeightElements } from '../catalog/parameters.js';
import { linkBytesPerSecond } from '../catalog/pools.js';
import type { Access, Attribute, Op } from '../schedule/op.js';
import type { PredictInput } from './input.js';
import { gatherSeconds, optimizerSeconds } from './zeroCosts.js';

export interface OpCost {
  readonly seconds: number;
  readonly hostSeconds: number;
  readonly attentionFlops: number;
  readonly otherFlops: number;
  /** Through the op's link; 0 for all but copies. */
  readonly copiedBytes: number;
}

export type OpCosts = (op: Op) => OpCost;

export function opCosts(input: PredictInput): OpCosts {
  const sizes = opSizes({ ...input, device: input.cluster.device });
  const copies = new Map<string, Map<Access, OpCost>>(input.streams.map((stream) => [stream, new Map()]));
  return (op) => {
    // Most ops of a long section are copies of the same few rows: one that was priced is known by its stream and what it reads.
    const alike = op.kind === 'copy' && op.reads.length === 1 ? copies.get(op.stream) : undefined;
    const [read] = op.reads;
    const known = read === undefined ? undefined : alike?.get(read);
    if (known !== undefined) return known;
    const cost = price(op);
    if (read !== undefined) alike?.set(read, cost);
    return cost;
  };

  function price(op: Op): OpCost {
    const attribute = op.attribute === undefined ? undefined : input.attributes[op.attribute];
    const hostSeconds = hostSecondsOf(op, attribute, input, sizes);
    const moved = movingSeconds(op, input, sizes);
    if (moved !== undefined) {
      const copiedBytes = op.kind === 'copy' ? viewBytes(op.reads, input.buffers) : 0;
      return { seconds: moved, hostSeconds, attentionFlops: 0, otherFlops: 0, copiedBytes };
    }
    const work = opWork(op, attribute, input.buffers, sizes);
    return {
      seconds: input.cluster.rates.launchSeconds + computeSeconds(work, input),
      hostSeconds,
      attentionFlops: work.attentionForwardFlops + work.attentionBackwardFlops,
      otherFlops: work.matmulFlops,
      copiedBytes: 0,
    };
  }
}

function hostSecondsOf(op: Op, attribute: Attribute | undefined, input: PredictInput, sizes: OpSizes): number {
  const { hostSecondsPerOp, hostSecondsPerKernel } = input.cluster.rates;
  if (hostSecondsPerKernel === 0) return hostSecondsPerOp;
  return hostSecondsPerOp + numKernels(op, attribute, input.buffers, sizes) * hostSecondsPerKernel;
}

/** Of ops that have no work in the catalog; undefined for all others. What ZeRO's hooks do is priced by the turn they do it in. */
function movingSeconds(op: Op, input: PredictInput, sizes: OpSizes): number | undefined {
  const { rates } = input.cluster;
  switch (op.kind) {
    case 'loadBatch':
      return rates.launchSeconds + viewBytes(op.writes, input.buffers) / rates.h2dBytes;
    case 'copy':
      return rates.launchSeconds + viewBytes(op.reads, input.buffers) / linkBytesPerSecond(op.stream, rates);
    case 'toHeads':
      return rates.launchSeconds + exchangeSeconds(viewBytes(op.writes, input.buffers), input, sizes);
    case 'toSequence':
      return rates.launchSeconds + exchangeSeconds(viewBytes(op.reads, input.buffers), input, sizes);
    case 'gather':
      return rates.launchSeconds + gatherSeconds(largestLayer(input), input);
    case 'release':
      return 0;
    case 'optimizerStep':
      return rates.launchSeconds + optimizerSeconds(input);
    default:
      if (OP_ROWS[op.kind].external) throw new RangeError(`${op.kind} is ZeRO's own call, and has no price in a section`);
      return undefined;
  }
}

/** A section knows no layer. */
function largestLayer({ parameters: { layers } }: PredictInput): number {
  return Math.max(...layers.map(({ weights }) => numWeightElements(weights)));
}

function computeSeconds(work: OpWork, { cluster: { rates } }: PredictInput): number {
  const flopSeconds =
    work.matmulFlops / rates.matmulFlops +
    work.attentionForwardFlops / rates.attentionForwardFlops +
    work.attentionBackwardFlops / rates.attentionBackwardFlops;
  return Math.max(flopSeconds, work.hbmBytes / rates.memoryBytes);
}

/**
 * All-to-all over the sequence group. The bytes are those of the head-sharded side, with copies and padded heads, of which a rank
 * keeps 1/P. Without a group it is a copy in memory.
 */
function exchangeSeconds(bytes: number, { cluster: { rates } }: PredictInput, { ranks }: OpSizes): number {
  if (ranks === 1) return (2 * bytes) / rates.memoryBytes;
  return rates.commLatencySeconds + (bytes * (ranks - 1)) / ranks / rates.commBytes;
}
