/** The letters of all formulas, found once for a run. */
import { DTYPE_BYTES } from '../../spec/dtype.js';
import { ownHeads, ownKvHeads, type ParallelLayout } from '../../spec/parallelLayout.js';
import type { ClusterSpec, ModelSpec, ParameterTable, ParameterView, RunSpec } from '../../spec/types.js';
import { CodeCosts } from './codeCosts.js';
import { type CopiesOf, copiesOf } from './exchangeCopies.js';
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
  /** Of an exchange of views with query heads, or key/value heads: all of them, or a group. */
  readonly copies: { readonly query: CopiesOf; readonly keyValue: CopiesOf };
  /** Costs of what the model computes. */
  readonly code: CodeCosts;
  /** Whether logits have a softcap. */
  readonly softcap: boolean;
  /** Whether the weight that makes logits trains. */
  readonly trainsLmHead: boolean;
  /** Whether a bias that it has does. */
  readonly trainsLmHeadBias: boolean;
  /** Weights whose gradients lie in a region of layers, by its size. */
  readonly layerTensors: ReadonlyMap<number, number>;
  /** Whether tensors count that only CUDA kernels make inside. */
  readonly cuda: boolean;
  readonly kernels: Kernels;
  /** Whether ops may be cut into documents. */
  readonly packing: boolean;
}

export interface OpSizesInput {
  readonly model: ModelSpec;
  readonly run: Pick<RunSpec, 'dtype' | 'packing'>;
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
    copies: { query: copiesOf(layout.heads.query), keyValue: copiesOf(layout.heads.keyValue) },
    code: new CodeCosts(model.code, { w: DTYPE_BYTES[run.dtype], cuda: device === 'cuda', fused: kernels?.fused }),
    softcap: model.code.lmHead.softcap !== null,
    trainsLmHead: lmHeadWeight(model, parameters)?.trainable === true,
    trainsLmHeadBias: model.code.lmHead.weights
      .slice(1)
      .some(({ name }) => parameters.head.some((one) => one.name === name && one.trainable)),
    layerTensors: new Map(
      parameters.layers.map(({ weights, numElements }) => [numElements, weights.filter(({ trainable }) => trainable).length]),
    ),
    cuda: device === 'cuda',
    kernels: kernels ?? defaultKernels(device),
    packing: run.packing === true,
  };
}

/** The weight that makes logits: of a tied model the table of tokens, which is the embedding's first. */
function lmHeadWeight({ code: { lmHead } }: Pick<ModelSpec, 'code'>, { head, embed }: ParameterTable): ParameterView | undefined {
  const [own] = lmHead.weights;
  return own === undefined ? embed[0] : head.find(({ name }) => name === own.name);
}
