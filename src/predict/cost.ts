/** What an op costs alone: seconds on its stream, of its products, its element-wise kernels, its messages and launches; and of the host. */
import { OP_ROWS, ofGroup, opSizes, type OpSizes, type OpWork, opWork, rowsOf, viewBytes } from '../catalog/ops/index.js';
import { BACKWARD_FLOPS, kernelRate } from '../catalog/kernelChoice.js';
import { numWeightElements } from '../catalog/parameters.js';
import { linkBytesPerSecond } from '../catalog/pools.js';
import type { Access, Op } from '../schedule/op.js';
import type { PredictInput } from './input.js';
import { KernelSeconds } from './kernelSeconds.js';
import { exchangeSeconds } from './links.js';
import { rankWaits } from './rankWaits.js';
import { gatherSeconds, optimizerSeconds, releaseSeconds } from './zeroCosts.js';

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
  const sizes = input.sizes ?? opSizes({ ...input, device: input.cluster.device });
  const attention = attentionRate(input, sizes);
  const kernels = new KernelSeconds(input.cluster.rates, sizes);
  const waits = rankWaits(input, (op) => price(op).seconds);
  const copies = new Map<string, Map<Access, OpCost>>(input.streams.map((stream) => [stream, new Map()]));
  return (op) => {
    // Most ops of a long section are copies of the same few rows: one that was priced is known by its stream and what it reads.
    const alike = op.kind === 'copy' && op.reads.length === 1 ? copies.get(op.stream) : undefined;
    const [read] = op.reads;
    const known = read === undefined ? undefined : alike?.get(read);
    if (known !== undefined) return known;
    const alone = price(op);
    const wait = waits(op);
    const cost = wait === 0 ? alone : { ...alone, seconds: alone.seconds + wait };
    if (read !== undefined) alike?.set(read, cost);
    return cost;
  };

  function price(op: Op): OpCost {
    const attribute = op.attribute === undefined ? undefined : input.attributes[op.attribute];
    const { rates } = input.cluster;
    const work = opWork(op, attribute, input.buffers, sizes);
    const ownSeconds = input.cluster.device === 'cpu' && !OP_ROWS[op.kind].external ? rates.hostSecondsPerOp : 0;
    return {
      // One thread issues and computes where there is no device beside the host.
      seconds: ownSeconds + (movingSeconds(op, input) ?? 0) + computeSeconds(op, work),
      hostSeconds: rates.hostSecondsPerOp + work.kernels * rates.hostSecondsPerKernel,
      attentionFlops: work.attentionForwardFlops + work.attentionBackwardFlops,
      otherFlops: work.matmulFlops,
      copiedBytes: op.kind === 'copy' ? viewBytes(op.reads, input.buffers) : 0,
    };
  }

  function computeSeconds(op: Op, work: OpWork): number {
    const attribute = op.attribute === undefined ? undefined : input.attributes[op.attribute];
    const [forward, backward] = [work.attentionForwardFlops, work.attentionBackwardFlops];
    if (forward + backward === 0) return kernels.ofOp(op, attribute, work);
    const { flops, startKeys, maskKeys } = forward > 0 ? attention.forward : attention.backward;
    const isMasked = attribute?.mask !== undefined && attribute.mask.kind !== 'full';
    const keys = maskKeys === undefined ? startKeys : isMasked ? maskKeys : 0;
    const moreFlops = (forward > 0 ? 1 : BACKWARD_FLOPS) * 4 * ofGroup(sizes, attribute).ownQ * rowsOf(op.tokens) * keys;
    return (forward + backward + moreFlops) / flops + (maskKeys === undefined ? kernels.ofOp(op, attribute, work) : 0);
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
      // Of a layer that is rebuilt.
      return gatherSeconds(largestLayer(input), input, true);
    case 'release':
      return releaseSeconds(input);
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

interface Attention {
  readonly flops: number;
  /** Makes half the rate at so many keys: those keys once more for each query. */
  readonly startKeys: number;
  /** Of a measured kernel, in place of those: for queries under a mask alone. */
  readonly maskKeys: number | undefined;
}

function attentionRate({ cluster: { rates }, kernels }: PredictInput, { d }: OpSizes): Record<'forward' | 'backward', Attention> {
  const forward = kernelRate(kernels.attn, d, rates);
  const backward = kernelRate(kernels.attnBwd, d, rates);
  const startKeys = rates.attentionHalfKeys;
  return {
    forward: { flops: forward?.forwardFlops ?? rates.attentionForwardFlops, startKeys, maskKeys: forward?.measured?.forwardMaskKeys },
    backward: { flops: backward?.backwardFlops ?? rates.attentionBackwardFlops, startKeys, maskKeys: backward?.measured?.backwardMaskKeys },
  };
}
