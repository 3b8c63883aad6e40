/** What an op costs alone: seconds on its stream, of its products, its element-wise kernels, its messages and launches; and of the host. */
import { OP_ROWS, opSizes, type OpSizes, type OpWork, opWork, rowsOf, viewBytes } from '../catalog/ops/index.js';
import { numWeightElements } from '../catalog/parameters.js';
import { linkBytesPerSecond } from '../catalog/pools.js';
import type { Access, Op } from '../schedule/op.js';
import type { AttentionRate, Rates } from '../spec/types.js';
import type { PredictInput } from './input.js';
import { exchangeSeconds } from './links.js';
import { gatherSeconds, optimizerSeconds } from './zeroCosts.js';

export interface OpCost {
  readonly seconds: number;
  readonly hostSeconds: number;
  readonly attentionFlops: number;
  readonly otherFlops: number;
  /** Through the op's link; 0 for all but copies. */
  readonly copiedBytes: number;
}

/** Ordinary memory, which a batch comes from, is not pinned: copies are 4 to 6 times slower on a node of 8 GPUs (DeepSpeed pull request 5301). */
export const PAGEABLE_SLOWDOWN = 5;

export type OpCosts = (op: Op) => OpCost;

export function opCosts(input: PredictInput): OpCosts {
  const sizes = opSizes({ ...input, device: input.cluster.device });
  const attention = attentionRate(input, sizes);
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
      seconds: ownSeconds + launchSeconds + (movingSeconds(op, input) ?? 0) + computeSeconds(op, work, input.cluster.rates, attention),
      hostSeconds: rates.hostSecondsPerOp + work.kernels * rates.hostSecondsPerKernel,
      attentionFlops: work.attentionForwardFlops + work.attentionBackwardFlops,
      otherFlops: work.matmulFlops,
      copiedBytes: op.kind === 'copy' ? viewBytes(op.reads, input.buffers) : 0,
    };
  }
}

/** What an op moves over a link, or leaves to ZeRO; undefined for all others. What ZeRO's hooks do is priced by their turn. */
function movingSeconds(op: Op, input: PredictInput): number | undefined {
  const { rates } = input.cluster;
  switch (op.kind) {
    case 'loadBatch':
      return (viewBytes(op.writes, input.buffers) * (input.cluster.device === 'cuda' ? PAGEABLE_SLOWDOWN : 1)) / rates.h2dBytes;
    case 'copy':
      return viewBytes(op.reads, input.buffers) / linkBytesPerSecond(op.stream, rates);
    case 'toHeads':
      return exchangeSeconds(viewBytes(op.writes, input.buffers), op.writes.length, input.cluster, input.layout);
    case 'toSequence':
      return exchangeSeconds(viewBytes(op.reads, input.buffers), op.reads.length, input.cluster, input.layout);
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
function computeSeconds(op: Op, work: OpWork, rates: Rates, attention: Attention): number {
  const { attentionForwardFlops: forward, attentionBackwardFlops: backward } = work;
  const startFlops = attention.startFlopsPerQuery * rowsOf(op.tokens);
  return (
    work.matmulFlops / rates.matmulFlops +
    (forward === 0 ? 0 : (forward + startFlops) / attention.forwardFlops) +
    (backward === 0 ? 0 : (backward + 2.5 * startFlops) / attention.backwardFlops) +
    (work.weightBytes + work.elementBytes) / rates.memoryBytes
  );
}

interface Attention {
  readonly forwardFlops: number;
  readonly backwardFlops: number;
  /** What makes half the rate at so many keys: those keys once more. */
  readonly startFlopsPerQuery: number;
}

function attentionRate({ cluster: { rates }, kernels }: PredictInput, { d, ownQ }: OpSizes): Attention {
  return {
    forwardFlops: kernelRate(kernels.attn, d, rates)?.forwardFlops ?? rates.attentionForwardFlops,
    backwardFlops: kernelRate(kernels.attnBwd, d, rates)?.backwardFlops ?? rates.attentionBackwardFlops,
    startFlopsPerQuery: 4 * ownQ * rates.attentionHalfKeys,
  };
}

/** The kernel's row with the largest head dim up to this one, else that of its smallest. */
export function kernelRate(kernel: string, headDim: number, { attentionKernels }: Rates): AttentionRate | undefined {
  const rows = attentionKernels.filter((row) => row.kernel === kernel).sort((a, b) => a.headDim - b.headDim);
  return rows.findLast((row) => row.headDim <= headDim) ?? rows[0];
}
