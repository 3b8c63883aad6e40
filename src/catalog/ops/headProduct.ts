/** Gradients of the weights that make logits, before they are added to their fp32 region. */
import { blocksOf } from '../fusedKernels.js';
import type { OpSizes } from './sizes.js';

/** The largest block of one, and the kernels that form and add them. */
export function headProduct(sizes: OpSizes): { readonly bytes: number; readonly kernels: number } {
  const { w, v, trainsLmHead, trainsLmHeadBias } = sizes;
  const product = trainsLmHead ? matrix(sizes) : { bytes: 0, kernels: 0 };
  return trainsLmHeadBias ? { bytes: Math.max(product.bytes, w * v), kernels: product.kernels + 2 } : product;
}

function matrix({ w, h, v, kernels: { fused } }: OpSizes): { readonly bytes: number; readonly kernels: number } {
  if (w >= 4) return { bytes: 0, kernels: 1 };
  const { rows, count } = blocksOf(v, w * h, fused?.weightGradient === undefined ? undefined : fused);
  return { bytes: w * h * rows, kernels: 2 * count };
}
