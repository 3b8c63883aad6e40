/** What an op costs alone: seconds on its stream, of its products, its element-wise kernels, its messages and launches; and of the host. */
import { OP_ROWS, opSizes, type OpSizes, type OpWork, opWork, viewBytes } from '../catalog/ops/index.js';
import { numWeightElements } from '../catalog/parameters.js';
import { linkBytesPerSecond } from '../catalog/pools.js';
import type { Access, Op } from '../schedule/op.js';
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

/** A batch comes from ordinary memory, not pinned: 4 to 6 times slower on a node of 8 GPUs (DeepSpeed pull request 5301). */
const PAGEABLE_SLOWDOWN = 5;

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
    const { rates } = input.cluster;
    const work = opWork(op, attribute, input.buffers, sizes);
    const launchSeconds = work.kernels * rates.launchSeconds;
    const ownSeconds = input.cluster.device === 'cpu' && !OP_ROWS[op.kind].external ? rates.hostSecondsPerOp : 0;
    return {
      // One thread issues and computes where there is no device beside the host.
      seconds: ownSeconds + launchSeconds + (movingSeconds(op, input, sizes) ?? 0) + computeSeconds(work, input),
      hostSeconds: rates.hostSecondsPerOp + work.kernels * rates.hostSecondsPerKernel,
      attentionFlops: work.attentionForwardFlops + work.attentionBackwardFlops,
      otherFlops: work.matmulFlops,
      copiedBytes: op.kind === 'copy' ? viewBytes(op.reads, input.buffers) : 0,
    };
  }
}

/** What an op moves over a link, or leaves to ZeRO; undefined for all others. What ZeRO's hooks do is priced by their turn. */
function movingSeconds(op: Op, input: PredictInput, sizes: OpSizes): number | undefined {
  const { rates } = input.cluster;
  switch (op.kind) {
    case 'loadBatch':
      return (viewBytes(op.writes, input.buffers) * (input.cluster.device === 'cuda' ? PAGEABLE_SLOWDOWN : 1)) / rates.h2dBytes;
    case 'copy':
      return viewBytes(op.reads, input.buffers) / linkBytesPerSecond(op.stream, rates);
    case 'toHeads':
      return exchangeSeconds(viewBytes(op.writes, input.buffers), op.writes.length, input, sizes);
    case 'toSequence':
      return exchangeSeconds(viewBytes(op.reads, input.buffers), op.reads.length, input, sizes);
    case 'gather':
      return gatherSeconds(largestLayer(input), input);
    case 'release':
      return 0;
    case 'optimizerStep':
      return optimizerSeconds(input);
    default:
      if (OP_ROWS[op.kind].external) throw new RangeError(`${op.kind} is ZeRO's own call, and has no price in a section`);
      return undefined;
  }
}

/** A section knows no layer. */
function largestLayer({ parameters: { layers } }: PredictInput): number {
  return Math.max(...layers.map(({ weights }) => numWeightElements(weights)));
}

/**
 * Kernels run one after the other, so their times add up. A product takes its FLOPs at the rate of long rows, and the time in which
 * its weights pass through memory: half that rate where both are equal, which is what few rows get (the roofline of Williams et al.,
 * with the sum for the larger, since a product of few tiles hides little of one under the other).
 */
function computeSeconds(work: OpWork, { cluster: { rates } }: PredictInput): number {
  return (
    work.matmulFlops / rates.matmulFlops +
    work.attentionForwardFlops / rates.attentionForwardFlops +
    work.attentionBackwardFlops / rates.attentionBackwardFlops +
    (work.weightBytes + work.elementBytes) / rates.memoryBytes
  );
}

/**
 * All-to-all over the sequence group, a message a pair one after the other. The bytes are those of the head-sharded side, with copies
 * and padded heads, of which a rank keeps 1/P. Packing counts with the op's kernels; without a group there is nothing else.
 */
function exchangeSeconds(bytes: number, numPairs: number, { cluster: { rates } }: PredictInput, { ranks }: OpSizes): number {
  if (ranks === 1) return 0;
  return numPairs * rates.commLatencySeconds + (bytes * (ranks - 1)) / ranks / rates.commBytes;
}
