/** Gradients of the weights that make logits, on their way to their fp32 region. */
import { type RegionSum, regionSum } from '../fusedKernels.js';
import type { OpSizes } from './sizes.js';

/** What is made at most, all kernels, and bytes read and written beside the product's. */
export function headProduct({ w, h, v, trainsLmHead, trainsLmHeadBias, kernels: { fused } }: OpSizes): RegionSum {
  const sum = trainsLmHead ? regionSum(v, h, w, fused) : { bytes: 0, kernels: 0, elementBytes: 0 };
  const { bytes, kernels } = trainsLmHeadBias ? { bytes: Math.max(sum.bytes, w * v), kernels: sum.kernels + 2 } : sum;
  return { bytes, kernels, elementBytes: sum.elementBytes * v * h };
}
