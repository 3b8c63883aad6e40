/** What a formula reads of one instruction of a model's code. */
import type { StepAttributes } from '../../spec/modelCode.js';
import type { FusedKernels } from '../fusedKernels.js';

/** What of a run decides what code costs. */
export interface CodePlace {
  /** Bytes of the model dtype. */
  readonly w: number;
  /** As the kernels of a GPU keep values; left out: as those of the CPU. */
  readonly cuda?: boolean;
  /** Left out: all plain. */
  readonly fused?: FusedKernels | undefined;
}

/** Sizes of one instruction on some rows. */
export interface PrimitiveFacts {
  readonly rows: number;
  /** Bytes of the model dtype. */
  readonly w: number;
  readonly cuda: boolean;
  readonly fused: FusedKernels | undefined;
  /** Elements of a row of the first input, and of the result that the step makes going forward. */
  readonly inWidth: number;
  readonly outWidth: number;
  /** Elements of each weight, or of the part of it that is used. */
  readonly weights: readonly number[];
  /** Whether each of them trains. */
  readonly trains: readonly boolean[];
  readonly attributes: StepAttributes;
}

/** Gradients of the two factors, but for one that has none. */
export function gradientsMade({ attributes: { skip0, skip1 } }: Pick<PrimitiveFacts, 'attributes'>): number {
  return (skip0 === true ? 0 : 1) + (skip1 === true ? 0 : 1);
}

/** The first slice of a value whose gradient is formed makes it, of zeros; the others are added to it. */
export function makesWhole({ inWidth, outWidth }: Pick<PrimitiveFacts, 'inWidth' | 'outWidth'>): boolean {
  return inWidth > outWidth;
}
