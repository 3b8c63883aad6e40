/**
 * Peak bytes of the tensors that an op makes inside, by kind: what the worker's handlers ask of PyTorch's allocator between
 * entry and exit. Each formula names the tensors that are alive together at the op's largest moment.
 *
 * Letters: t rows of the op (a rank's tokens, or all tokens of the chunk for head-sharded views), w bytes of the model
 * dtype, h hidden size, d head dim, Hq and Hk query and key/value heads (own heads for attention), f MLP width, V vocabulary.
 */
import { DTYPE_BYTES } from '../spec/dtype.js';
import type { ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';
import { parameterTable } from './parameters.js';
import { type BufferShape, type OpShape, rowsOf, viewBytes } from './opShape.js';

/** Structurally the ScratchFormula of schedule/build.ts. */
export type ScratchBytes = (op: OpShape, buffers: readonly BufferShape[]) => number;

export function scratchFormula(model: ModelSpec, run: RunSpec, parameters: ParameterTable = parameterTable(model)): ScratchBytes {
  const sizes = sizesOf(model, run, parameters);
  return (op, buffers) => {
    const formula = FORMULAS[op.kind];
    if (formula === undefined) throw new RangeError(`op kind '${op.kind}' has no scratch formula`);
    return Math.ceil(formula(sizes, op, buffers));
  };
}

interface Sizes {
  readonly w: number;
  readonly h: number;
  readonly f: number;
  readonly v: number;
  /** Elements of one row of all heads. */
  readonly q: number;
  readonly kv: number;
  readonly ownQ: number;
  readonly ownKv: number;
  readonly ownHeads: number;
  readonly sequenceParallelSize: number;
  readonly preElements: number;
  readonly postElements: number;
}

function sizesOf(model: ModelSpec, run: RunSpec, parameters: ParameterTable): Sizes {
  const ranks = run.sequenceParallelSize;
  const q = model.numHeads * model.headDim;
  const kv = model.numKvHeads * model.headDim;
  return {
    w: DTYPE_BYTES[run.dtype],
    h: model.hiddenSize,
    f: model.mlpWidth,
    v: model.vocabSize,
    q,
    kv,
    ownQ: q / ranks,
    ownKv: kv / ranks,
    ownHeads: model.numHeads / ranks,
    sequenceParallelSize: ranks,
    preElements: parameters.numPreElements,
    postElements: parameters.numLayerElements - parameters.numPreElements,
  };
}

type Formula = (sizes: Sizes, op: OpShape, buffers: readonly BufferShape[]) => number;

const none: Formula = () => 0;
const rows = (op: OpShape): number => rowsOf(op.reads[0]?.rows);

/** LlamaRMSNorm: the fp32 copy of x, the fp32 product and the two results in the model dtype; in fp32 the copy is x itself. */
const norm = ({ w, h }: Sizes): number => (w < 4 ? 4 + 4 : 4) * h + 2 * w * h;

/** One exchange: a packed send buffer and a packed receive buffer; a single rank copies straight. */
const exchange: Formula = ({ sequenceParallelSize }, op, buffers) =>
  sequenceParallelSize === 1 ? 0 : viewBytes(op.reads, buffers) + viewBytes(op.writes, buffers);

/** norm1(x), the projections, and RoPE's rotated half, two products and sum for the widest of q and k; cos and sin. */
const projections =
  (query: number, keyValue: number): Formula =>
  (s, op) => {
    const { w, h } = s;
    const projected = query * s.q + keyValue * 2 * s.kv;
    const rotated = 3 * Math.max(query * s.q, keyValue * s.kv);
    const angles = 2 * (s.q / Math.max(1, s.ownHeads * s.sequenceParallelSize)) * (4 + w);
    return rows(op) * Math.max(norm(s), w * (h + projected + rotated) + angles);
  };

const FORMULAS: Readonly<Record<string, Formula>> = {
  loadBatch: none,
  zero: none,
  cast: none,
  mergeFirst: none,
  fetch: none,
  offload: none,
  gather: none,
  release: none,
  reduce: none,
  optimizerStep: none,
  toHeads: exchange,
  toSequence: exchange,
  /** The gathered rows, before they are copied into the arena. */
  embed: ({ w, h }, op) => rows(op) * w * h,
  pre: projections(1, 1),
  preQ: projections(1, 0),
  preKv: projections(0, 1),
  /** o and lse of the kernel, before they are copied into the arena. */
  attn: ({ w, ownQ, ownHeads }, op) => rows(op) * (w * ownQ + 4 * ownHeads),
  /** The new lse, the two weights exp(lse - new), and one weighted fp32 copy of the output. */
  merge: ({ ownQ, ownHeads }, op) => rows(op) * (4 * ownQ + 4 * 4 * ownHeads),
  /** x + oProj(o), norm2 of it, and act(gate), up and their product; then the MLP's output beside the residual. */
  post: (s, op) => rows(op) * Math.max(s.w * s.h + norm(s), s.w * (2 * s.h + 3 * s.f), s.w * (3 * s.h + s.f)),
  /**
   * The graph of post (residual, norm2 with its fp32 tensors, gate, act(gate), up, product, output), the gradients of three of
   * the MLP's wide tensors and of the hidden ones, and the weight gradients, which autograd returns together.
   */
  postBwd: (s, op) =>
    rows(op) * (s.w * (4 * s.f + 4 * s.h + s.q) + norm(s) + s.w * (3 * s.f + 3 * s.h)) + s.w * s.postElements,
  /** The graph of pre (norm1 with its fp32 tensors, q, k, v and RoPE's products), dq, dk, dv in the model dtype, dx, weight gradients. */
  preBwd: (s, op) => rows(op) * (norm(s) + s.w * (2 * s.h + 4 * (s.q + 2 * s.kv)) + 4 * s.h) + s.w * s.preElements,
  /**
   * dq, dk, dv of the kernel; inside FlashAttention-2: softmax sums and dq in fp32, and dk, dv per query head before they are
   * summed over the group (aten `_flash_attention_backward`).
   */
  attnBwd: (s, op) => {
    const keys = rowsOf(op.kv);
    const results = s.w * (rows(op) * s.ownQ + 2 * keys * s.ownKv);
    const grouped = s.ownQ === s.ownKv ? 0 : 2 * s.w * keys * s.ownQ;
    return results + rows(op) * (4 * s.ownHeads + 4 * s.ownQ) + grouped;
  },
  /** norm(x), logits in the model dtype, their fp32 copy and its gradient, the gradient in the model dtype; dx; lm_head's gradient. */
  loss: (s, op) => rows(op) * (s.v * (2 * s.w + 2 * 4) + norm(s) + 2 * s.w * s.h) + s.w * s.v * s.h,
  /** dx in fp32, before it is added to the rows of the tokens. */
  embedBwd: ({ h }, op) => rows(op) * 4 * h,
  /** The gradients in the parameter dtype; they are autograd's once the op ends. */
  emitGrads: ({ w }, op) => rows(op) * w,
};
