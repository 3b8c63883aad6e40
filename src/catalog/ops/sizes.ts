/** The letters of all formulas, found once for a run. */
import { DTYPE_BYTES } from '../../spec/dtype.js';
import { kvCopies, ownHeads, ownKvHeads, paddedHeads, type ParallelLayout } from '../../spec/parallelLayout.js';
import type { ClusterSpec, ModelSpec, ParameterTable, RunSpec } from '../../spec/types.js';
import { CodeCosts } from './codeCosts.js';
import { defaultKernels, type Kernels } from '../kernels.js';

/** Bytes and elements. `own` is what one sequence parallel rank holds of head-sharded views, copies and padded heads included. */
export interface OpSizes {
  /** Bytes of the model dtype. */
  readonly w: number;
  /** Hidden size, head dim and vocabulary. */
  readonly h: number;
  readonly d: number;
  readonly v: number;
  /** Elements of a row of all query heads, and of all key/value heads. */
  readonly q: number;
  readonly kv: number;
  readonly ownQ: number;
  readonly ownKv: number;
  readonly ownHeads: number;
  /** Sequence parallel ranks. */
  readonly ranks: number;
  /** Every head stands in one place: none is padded or copied. */
  readonly evenHeads: boolean;
  /** Costs of what the model computes. */
  readonly code: CodeCosts;
  /** Whether logits have a softcap. */
  readonly softcap: boolean;
  readonly layerTensors: number;
  readonly layerElements: number;
  /** Whether tensors count that only CUDA kernels make inside. */
  readonly cuda: boolean;
  readonly kernels: Kernels;
}

export interface OpSizesInput {
  readonly model: ModelSpec;
  readonly run: Pick<RunSpec, 'dtype'>;
  readonly parameters: ParameterTable;
  readonly layout: ParallelLayout;
  readonly device: ClusterSpec['device'];
  /** Left out: the device's own. */
  readonly kernels?: Kernels;
}

export function opSizes({ model, run, parameters, layout, device, kernels }: OpSizesInput): OpSizes {
  const heads = ownHeads(layout);
  const kvHeads = ownKvHeads(layout);
  return {
    w: DTYPE_BYTES[run.dtype],
    h: model.hiddenSize,
    d: model.headDim,
    v: model.vocabSize,
    q: model.numHeads * model.headDim,
    kv: model.numKvHeads * model.headDim,
    ownQ: heads * model.headDim,
    ownKv: kvHeads * model.headDim,
    ownHeads: heads,
    ranks: layout.heads.query.length,
    evenHeads: kvCopies(layout) === 1 && paddedHeads(layout) === 0,
    code: new CodeCosts(model.code, DTYPE_BYTES[run.dtype], device === 'cuda'),
    softcap: model.code.lmHead.softcap !== null,
    layerTensors: parameters.layer.length,
    layerElements: parameters.numLayerElements,
    cuda: device === 'cuda',
    kernels: kernels ?? defaultKernels(device),
  };
}
