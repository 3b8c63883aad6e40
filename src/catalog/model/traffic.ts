/**
 * Bytes that the element-wise kernels of an instruction read and write, kernel by kernel as python/fpdt/models runs them one after
 * the other. What a product reads and writes is part of the rate that products reach, so only what is added to it counts. Weights
 * of norms are too small to count, but for their gradients.
 */
import type { InstructionName } from '../../spec/modelCode.js';
import { regionSum } from '../fusedKernels.js';
import { gradientsMade, makesWhole, type PrimitiveFacts } from './facts.js';

/** Bytes of fp32. */
const WIDE = 4;

type Bytes = (facts: PrimitiveFacts) => number;

/** `passes` of the model dtype over the step's input or its result, whichever counts for the step. */
const passes =
  (count: number, of: 'inWidth' | 'outWidth' = 'outWidth'): Bytes =>
  (facts) =>
    count * facts.rows * facts.w * facts[of];

export const ELEMENT_BYTES: Readonly<Record<InstructionName, Bytes>> = {
  linear: () => 0,
  linearBwd: gradientSums,
  rmsnorm: (facts) => facts.rows * facts.inWidth * (normalised(facts) + scaled(facts)),
  rmsnormBwd: (facts) => facts.rows * facts.inWidth * (normalised(facts) + normGradient(facts)) + sums(facts, WIDE),
  layernorm: passes(2),
  /** Forward again for its statistics; the input and the gradient, once for the input's and once for the weights'. */
  layernormBwd: (facts) => passes(2 + 3 + (facts.trains.some(Boolean) ? 2 : 0), 'inWidth')(facts) + sums(facts, facts.w),
  /** Positions to fp32. Half as many angles as results: formed, their cosine and sine, both scaled, each stored in the model dtype. */
  angles: ({ rows, w, outWidth }) => rows * (8 + WIDE + (outWidth * (WIDE + 4 * 2 * WIDE + 2 * (WIDE + w))) / 2),
  rope: rotation,
  ropeBwd: rotation,
  activation: (facts) => passes(facts.attributes.kind === 'relu2' ? 4 : 2)(facts),
  activationBwd: (facts) => passes(facts.attributes.kind === 'relu2' ? 7 : 3, 'inWidth')(facts),
  multiply: passes(3),
  multiplyBwd: (facts) => passes(3 * gradientsMade(facts), 'inWidth')(facts),
  add: passes(3),
  scale: passes(2),
  slice: passes(2),
  sliceBwd: (facts) => passes(3)(facts) + (makesWhole(facts) ? passes(1, 'inWidth')(facts) : 0),
  lookup: passes(2),
  /** To fp32, and the rows of the region, read and written; that of padding is kept aside and put back. */
  lookupBwd: ({ rows, w, outWidth, attributes }) =>
    rows * outWidth * ((w < WIDE ? w + WIDE : 0) + 3 * WIDE) + (attributes.padding === undefined ? 0 : 4 * WIDE * outWidth),
  cast: ({ rows, w, outWidth }) => (w < WIDE ? rows * outWidth * (WIDE + w) : 0),
  store: passes(2),
  load: () => 0,
  addTo: passes(3),
};

/** The product of a half dtype is added to its fp32 region; a bias' gradient is a sum over the rows. */
function gradientSums(facts: PrimitiveFacts): number {
  const { rows, w, fused, outWidth, weights, trains } = facts;
  const [weight = 0] = weights;
  const [isTrained = false, biasTrains = false] = trains;
  return (isTrained ? weight * regionSum(1, weight, w, fused).elementBytes : 0) + (biasTrains ? rows * outWidth * w : 0);
}

/** A gradient of each weight that trains is added to its fp32 region, from `bytes` an element. */
function sums({ trains, attributes: { size } }: PrimitiveFacts, bytes: number): number {
  return trains.filter(Boolean).length * Number(size) * (bytes + 2 * WIDE);
}

/** By element: to fp32, squared, averaged, multiplied; and by piece the inverse, in two passes. `vectornorm` squares as it adds, and has four. */
function normalised({ w, fused, attributes: { size } }: PrimitiveFacts): number {
  const squares = fused?.norm === undefined ? 2 * WIDE + WIDE + (4 * WIDE) / Number(size) : WIDE + (8 * WIDE) / Number(size);
  return (w < WIDE ? w + WIDE : 0) + squares + 2 * WIDE;
}

/** By element: `cast` to the model dtype and times the weight there, `wide` times the weight in fp32 and cast. */
function scaled({ w, attributes }: PrimitiveFacts): number {
  const cast = w < WIDE ? WIDE + w : 0;
  return cast + (attributes.style === 'cast' ? 2 * w : 2 * WIDE);
}

/**
 * By element, after `normalised`: the weight's gradient; that of the normalised input g; g - n mean(g n), of `vectornorm` in one pass, times the
 * inverse, cast.
 */
function normGradient({ w, fused, attributes, trains: [trains = false] }: PrimitiveFacts): number {
  const isCast = attributes.style === 'cast';
  const narrow = w < WIDE ? WIDE + w : 0;
  const weight = isCast ? narrow + 3 * w + w : 4 * WIDE;
  const upstream = isCast ? 2 * w + narrow : narrow + 2 * WIDE;
  const difference = (fused?.norm === undefined ? 2 + 3 : 3) * WIDE;
  const input = attributes.skip0 === true ? 0 : 3 * WIDE + WIDE + difference + 2 * WIDE + narrow;
  return (trains ? weight : 0) + upstream + input;
}

/**
 * Four products of a half each, two of them added to a half of the result, by `addcmul` in the pass that forms them; dimensions that do not
 * turn are copied.
 */
function rotation({ rows, w, fused, inWidth, attributes: { dims, headDim } }: PrimitiveFacts): number {
  const turned = Number(dims) / Number(headDim);
  return rows * w * inWidth * ((fused?.rope === undefined ? 7 : 5) * turned + 2 * (1 - turned));
}
