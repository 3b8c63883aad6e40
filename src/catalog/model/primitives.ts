/**
 * The primitives of a model's programs: what one costs forward and in reverse. Twin of python/fpdt/models/primitives.py, which this
 * reproduces tensor by tensor: `moments` lists the bytes alive at the moments of an instruction at which most is, its results
 * included, its inputs not.
 */
import type { InstructionName, PrimitiveName, Step } from '../../spec/modelCode.js';
import { type RegionSum, regionSum } from '../fusedKernels.js';
import { gradientsMade, makesWhole, type PrimitiveFacts } from './facts.js';

export interface PrimitiveCost {
  readonly moments: (facts: PrimitiveFacts) => readonly number[];
  readonly matmulFlops: (facts: PrimitiveFacts) => number;
  /** Kernels that the host launches. */
  readonly kernels: (facts: PrimitiveFacts) => number;
}

export interface Backward {
  readonly op: InstructionName;
  /** Inputs and values that it reads beside the gradient of the result. */
  readonly saved: (step: Step) => readonly string[];
  /** Inputs whose gradients it makes. */
  readonly gradients: (step: Step) => readonly string[];
}

export interface Primitive {
  /** `pass`: the gradient of the result is that of every input. Without it nothing has a gradient. */
  readonly backward?: Backward | 'pass';
}

/** Names that transformers has for what `activation` computes. */
export const ACTIVATIONS: readonly string[] = ['silu', 'swish', 'gelu', 'gelu_new', 'gelu_pytorch_tanh', 'gelu_fast', 'relu', 'relu2'];

const inputs = ({ of }: Step): readonly string[] => of;
const first = ({ of: [name] }: Step): readonly string[] => (name === undefined ? [] : [name]);
const none = (): readonly string[] => [];
const second = ({ of }: Step): readonly string[] => of.slice(1, 2);
/** The input is for the gradient of the weight alone. */
const forWeight = (step: Step): readonly string[] => (step.weights[0]?.frozen === true ? [] : step.of);

export const PRIMITIVES: Readonly<Record<PrimitiveName, Primitive>> = {
  linear: { backward: { op: 'linearBwd', saved: forWeight, gradients: inputs } },
  rmsnorm: { backward: { op: 'rmsnormBwd', saved: inputs, gradients: inputs } },
  layernorm: { backward: { op: 'layernormBwd', saved: inputs, gradients: inputs } },
  angles: {},
  rope: { backward: { op: 'ropeBwd', saved: second, gradients: first } },
  activation: { backward: { op: 'activationBwd', saved: inputs, gradients: inputs } },
  multiply: { backward: { op: 'multiplyBwd', saved: inputs, gradients: inputs } },
  add: { backward: 'pass' },
  scale: { backward: { op: 'scale', saved: none, gradients: first } },
  slice: { backward: { op: 'sliceBwd', saved: none, gradients: first } },
  lookup: { backward: { op: 'lookupBwd', saved: inputs, gradients: none } },
};

const result = ({ rows, w, outWidth }: PrimitiveFacts): number => rows * w * outWidth;
const gradient = ({ rows, w, inWidth }: PrimitiveFacts): number => rows * w * inWidth;
const nothing = (): number => 0;
const noMoments = (): readonly number[] => [0];

/** 2 per weight and row. */
const product = ({ rows, weights: [weight = 0] }: PrimitiveFacts): number => 2 * rows * weight;

/** Elements of all rows and fp32 bytes of a scalar for each of the pieces that a norm works on. */
function pieces({ rows, inWidth, attributes: { size } }: PrimitiveFacts): { elements: number; scalars: number; size: number } {
  const elements = rows * inWidth;
  return { elements, scalars: (4 * elements) / Number(size), size: Number(size) };
}

/** The scale of a norm in fp32, where it is not the weight itself: what is alive while it is formed, and after that. */
function scaleBytes({ w, attributes: { size, offset } }: PrimitiveFacts): { formed: number; held: number } {
  const one = 4 * Number(size);
  const [isCast, isMoved] = [w < 4, Number(offset ?? 0) !== 0];
  return { formed: (isCast ? one : 0) + (isMoved ? one : 0), held: isCast || isMoved ? one : 0 };
}

/** Whether an `offset` is added to a weight or to positions. */
function isMoved({ offset }: PrimitiveFacts['attributes']): boolean {
  return Number(offset ?? 0) !== 0;
}

/** Of a `wide` norm: its scale to fp32, and moved. */
function scaleKernels({ w, attributes }: PrimitiveFacts): number {
  return attributes.style === 'cast' ? 0 : (w < 4 ? 1 : 0) + Number(isMoved(attributes));
}

/** The mean and the inverse deviation of each piece, in the dtype that the device's kernel keeps them in, and the moved weight. */
function layernormBytes(facts: PrimitiveFacts): number {
  const { w, cuda, attributes } = facts;
  const { scalars, size } = pieces(facts);
  return (2 * scalars * (cuda ? 4 : w)) / 4 + (Number(attributes.offset ?? 0) === 0 ? 0 : w * size);
}

/** Elements of each weight, 0 for one that does not train. */
function trained({ weights, trains }: PrimitiveFacts): readonly number[] {
  return weights.map((elements, i) => (trains[i] === true ? elements : 0));
}

const elementwise = (kernels: number): PrimitiveCost => ({
  moments: (facts) => [result(facts)],
  matmulFlops: nothing,
  kernels: () => kernels,
});

export const COSTS: Readonly<Record<InstructionName, PrimitiveCost>> = {
  linear: { moments: (facts) => [result(facts)], matmulFlops: product, kernels: () => 1 },
  /** Of a half dtype the gradient of the weight is formed before it is added to its fp32 region; that of a bias always. */
  linearBwd: {
    moments: (facts) => {
      const [, bias = 0] = trained(facts);
      return [weightSum(facts).bytes, 4 * bias, facts.attributes.skip0 === true ? 0 : gradient(facts)];
    },
    matmulFlops: (facts) => product(facts) * (Number(facts.trains[0]) + Number(facts.attributes.skip0 !== true)),
    kernels: (facts) => {
      const [, bias = false] = facts.trains;
      return 1 + weightSum(facts).kernels + (bias ? 2 : 0);
    },
  },
  rmsnorm: {
    moments: (facts) => {
      const { elements: e, scalars } = pieces(facts);
      const { w, fused, attributes } = facts;
      const isPlain = fused?.norm === undefined;
      const normalised = (w < 4 && isPlain ? 8 : 4) * e + scalars;
      const product = isPlain ? (w < 4 ? 2 * w : 4) * e : w < 4 ? w * e : 0;
      const scaled = 4 * e + (attributes.style === 'cast' ? product : Math.max(scaleBytes(facts).formed, w < 4 ? w * e : 0));
      return [normalised, scaled];
    },
    matmulFlops: nothing,
    kernels: (facts) => (facts.w < 4 ? 8 : 6) + Number(facts.fused?.norm !== undefined) + scaleKernels(facts),
  },
  rmsnormBwd: {
    moments: (facts) => {
      const { elements: e, scalars } = pieces(facts);
      const { w, fused, attributes } = facts;
      const half = w < 4;
      const isPlain = fused?.norm === undefined;
      const normalised = (half && isPlain ? 8 : 4) * e + scalars;
      const product = half ? (isPlain ? 2 : 1) * w : 4;
      const weight = attributes.style === 'cast' ? 4 * e + scalars + product * e : (half ? 12 : 8) * e + scalars;
      const scaled =
        attributes.style === 'cast' ? 8 * e + scalars + (half ? w * e : 0) : (half ? 12 : 8) * e + scalars + scaleBytes(facts).held;
      const mean = 12 * e + 2 * scalars;
      return [normalised, weight, scaled, mean];
    },
    matmulFlops: nothing,
    kernels: (facts) => {
      const {
        w,
        fused,
        attributes,
        trains: [weight = false],
      } = facts;
      const [half, isCast, fewer] = [w < 4, attributes.style === 'cast', Number(fused?.norm !== undefined)];
      const input = attributes.skip0 === true ? 0 : (half ? 6 : 5) - fewer;
      return (half ? 6 : 5) + fewer + (half ? 2 : 1) + (weight ? (half && isCast ? 4 : 3) : 0) + scaleKernels(facts) + input;
    },
  },
  layernorm: {
    moments: (facts) => [result(facts) + layernormBytes(facts)],
    matmulFlops: nothing,
    kernels: ({ attributes }) => 1 + Number(isMoved(attributes)),
  },
  layernormBwd: {
    moments: (facts) => {
      const weights = facts.trains.filter(Boolean).length * facts.w * pieces(facts).size;
      return [gradient(facts) + layernormBytes(facts) + weights];
    },
    matmulFlops: nothing,
    /** Forward again; the input's gradient; those of the weights together, and the sum of each. */
    kernels: ({ trains, attributes }) => 2 + Number(isMoved(attributes)) + (trains.some(Boolean) ? 1 : 0) + trains.filter(Boolean).length,
  },
  angles: {
    moments: (facts) => {
      const { rows, outWidth } = facts;
      return [result(facts) + 4 * rows + 2 * rows * outWidth, result(facts) + 4 * rows * outWidth];
    },
    matmulFlops: nothing,
    kernels: () => 8,
  },
  rope: { moments: rotationMoments, matmulFlops: nothing, kernels: ropeKernels },
  ropeBwd: { moments: rotationMoments, matmulFlops: nothing, kernels: ropeKernels },
  activation: {
    moments: (facts) => [result(facts)],
    matmulFlops: nothing,
    kernels: ({ attributes }) => (attributes.kind === 'relu2' ? 2 : 1),
  },
  activationBwd: {
    moments: (facts) => [gradient(facts)],
    matmulFlops: nothing,
    kernels: ({ attributes }) => (attributes.kind === 'relu2' ? 3 : 1),
  },
  multiply: elementwise(1),
  multiplyBwd: {
    moments: (facts) => [gradientsMade(facts) * gradient(facts)],
    matmulFlops: nothing,
    kernels: gradientsMade,
  },
  add: elementwise(1),
  scale: elementwise(1),
  slice: elementwise(1),
  sliceBwd: { moments: noMoments, matmulFlops: nothing, kernels: (facts) => (makesWhole(facts) ? 2 : 1) },
  lookup: {
    moments: (facts) => [result(facts) + (Number(facts.attributes.offset ?? 0) === 0 ? 0 : 8 * facts.rows)],
    matmulFlops: nothing,
    kernels: ({ attributes }) => 1 + Number(isMoved(attributes)),
  },
  /** The gradient in fp32, positions moved by `offset`, and what the row of padding held before, which gets none. */
  lookupBwd: {
    moments: ({ rows, w, outWidth, attributes }) => {
      const moved = Number(attributes.offset ?? 0) === 0 ? 0 : 8 * rows;
      return [(w < 4 ? 4 : 0) * rows * outWidth + (attributes.padding === undefined ? 0 : 4 * outWidth) + moved];
    },
    matmulFlops: nothing,
    kernels: ({ w, attributes }) => 1 + (w < 4 ? 1 : 0) + Number(isMoved(attributes)) + (attributes.padding === undefined ? 0 : 2),
  },
  cast: { moments: (facts) => [facts.w < 4 ? result(facts) : 0], matmulFlops: nothing, kernels: ({ w }) => (w < 4 ? 1 : 0) },
  store: { moments: noMoments, matmulFlops: nothing, kernels: () => 1 },
  load: { moments: noMoments, matmulFlops: nothing, kernels: () => 0 },
  addTo: { moments: noMoments, matmulFlops: nothing, kernels: () => 1 },
};

/** Of the gradient of a weight that trains, on its way to its fp32 region. */
function weightSum(facts: PrimitiveFacts): Pick<RegionSum, 'bytes' | 'kernels'> {
  const { w, fused, inWidth, outWidth, attributes } = facts;
  const [weight = 0] = trained(facts);
  const columns = attributes.transposed === true ? outWidth : inWidth;
  return weight === 0 ? { bytes: 0, kernels: 0 } : regionSum(weight / columns, columns, w, fused);
}

/** The result, and in the plain kernel one product of half the rotated part of every head. */
function rotationMoments(facts: PrimitiveFacts): readonly number[] {
  const { rows, w, fused, inWidth, attributes } = facts;
  const rotated = (inWidth / Number(attributes.headDim)) * Number(attributes.dims);
  return [rows * w * (inWidth + (fused?.rope === undefined ? rotated / 2 : 0))];
}

function ropeKernels({ fused, attributes: { dims, headDim } }: PrimitiveFacts): number {
  return (fused?.rope === undefined ? 6 : 4) + (dims === headDim ? 0 : 1);
}
