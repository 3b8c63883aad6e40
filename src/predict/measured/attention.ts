/** Rates of attention from ops under different masks: seconds = (FLOPs + those of `maskKeys` more keys for each masked query) / rate. */
import { opWork, rowsOf } from '../../catalog/ops/index.js';
import { BACKWARD_FLOPS } from '../../catalog/kernelChoice.js';
import type { AttentionRate } from '../../spec/types.js';
import { sizesOf } from './kernels.js';
import { type Probe, timedOps } from './probe.js';

interface Point {
  readonly flops: number;
  /** FLOPs of one more key for each query that is under a mask. */
  readonly perKey: number;
  readonly seconds: number;
}

interface Line {
  readonly flops: number;
  readonly maskKeys: number;
}

/** Of the kernels that the plans run. */
export function attentionRates(probes: readonly Probe[]): readonly AttentionRate[] {
  const [first] = probes;
  if (first === undefined) throw new RangeError('no plan was measured');
  const { kernels, model } = first.plan;
  const forward = fitted(probes.flatMap((probe) => points(probe, 'attn')));
  const backward = fitted(probes.flatMap((probe) => points(probe, 'attnBwd')));
  const row = (kernel: string): AttentionRate => ({
    kernel,
    headDim: model.headDim,
    forwardFlops: forward.flops,
    backwardFlops: backward.flops,
    measured: { forwardMaskKeys: forward.maskKeys, backwardMaskKeys: backward.maskKeys },
  });
  return [...new Set([kernels.attn, kernels.attnBwd])].map(row);
}

function points(probe: Probe, kind: 'attn' | 'attnBwd'): readonly Point[] {
  const sizes = sizesOf(probe);
  const { attributes, buffers } = probe.plan;
  return timedOps(probe)
    .filter(({ op, timed }) => op.kind === kind && timed.count > 0)
    .map(({ op, timed }) => {
      const attribute = op.attribute === undefined ? undefined : attributes[op.attribute];
      const work = opWork(op, attribute, buffers, sizes);
      const queries = attribute?.mask === undefined || attribute.mask.kind === 'full' ? 0 : rowsOf(op.tokens);
      const perKey = (kind === 'attn' ? 1 : BACKWARD_FLOPS) * 4 * sizes.ownQ * queries;
      return { flops: work.attentionForwardFlops + work.attentionBackwardFlops, perKey, seconds: timed.seconds / timed.count };
    });
}

/** Least squares of relative errors; of both terms where both are positive, else of the FLOPs alone. */
function fitted(all: readonly Point[]): Line {
  const scaled = all.map(({ flops, perKey, seconds }) => [flops / seconds, perKey / seconds] as const);
  const total = (of: (a: number, b: number) => number): number => scaled.reduce((sum, [a, b]) => sum + of(a, b), 0);
  const [aa, ab, bb, a, b] = [total((x) => x * x), total((x, y) => x * y), total((_, y) => y * y), total((x) => x), total((_, y) => y)];
  const determinant = aa * bb - ab * ab;
  const secondsPerFlop = (a * bb - b * ab) / determinant;
  const secondsPerKeyFlop = (b * aa - a * ab) / determinant;
  if (determinant > SINGULAR * aa * bb && secondsPerFlop > 0 && secondsPerKeyFlop > 0)
    return { flops: 1 / secondsPerFlop, maskKeys: secondsPerKeyFlop / secondsPerFlop };
  return { flops: aa / a, maskKeys: 0 };
}

/** Masks that differ too little to tell the two terms apart. */
const SINGULAR = 1e-6;
