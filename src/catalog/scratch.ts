/**
 * Peak bytes of the tensors that an op makes inside, by kind: what the worker's handlers ask of PyTorch's allocator between
 * entry and exit. A formula is the maximum over the moments of an op at which most is alive; each moment lists its tensors.
 * Those of pre, post, loss and their gradients reproduce a tracker of live storages on the worker's handlers, to the byte.
 *
 * Letters: t rows of the op (a rank's tokens, or all tokens of the chunk for head-sharded views), w bytes of the model
 * dtype, h hidden size, d head dim, q and kv elements of a row of all query and all key/value heads, f MLP width, v
 * vocabulary. `own` is the share of one sequence parallel rank.
 */
import { DTYPE_BYTES } from '../spec/dtype.js';
import type { ClusterSpec, ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';
import { type BufferShape, type OpShape, rowsOf, viewBytes } from './opShape.js';
import { parameterTable } from './parameters.js';
import { type Sizes, normBytes, postBackward, preBackward, projections } from './scratchLayer.js';

/** Structurally the ScratchFormula of schedule/build.ts. */
export type ScratchBytes = (op: OpShape, buffers: readonly BufferShape[]) => number;

/** `device` says whether tensors count that only CUDA kernels make inside. */
export function scratchFormula(
  model: ModelSpec,
  run: RunSpec,
  parameters: ParameterTable = parameterTable(model),
  device: ClusterSpec['device'] = 'cuda',
): ScratchBytes {
  const sizes = sizesOf(model, run, parameters, device);
  return (op, buffers) => {
    const formula = FORMULAS[op.kind];
    if (formula === undefined) throw new RangeError(`op kind '${op.kind}' has no scratch formula`);
    return Math.ceil(formula(sizes, op, buffers));
  };
}

function sizesOf(model: ModelSpec, run: RunSpec, parameters: ParameterTable, device: ClusterSpec['device']): Sizes {
  const ranks = run.sequenceParallelSize;
  const q = model.numHeads * model.headDim;
  const kv = model.numKvHeads * model.headDim;
  return {
    w: DTYPE_BYTES[run.dtype],
    h: model.hiddenSize,
    d: model.headDim,
    f: model.mlpWidth,
    v: model.vocabSize,
    q,
    kv,
    ownQ: q / ranks,
    ownKv: kv / ranks,
    ownHeads: model.numHeads / ranks,
    ranks,
    preElements: parameters.numPreElements,
    postElements: parameters.numLayerElements - parameters.numPreElements,
    cuda: device === 'cuda',
  };
}

type Formula = (sizes: Sizes, op: OpShape, buffers: readonly BufferShape[]) => number;

const none: Formula = () => 0;
const rows = (op: OpShape): number => rowsOf(op.reads[0]?.rows);

/** One exchange: a packed send buffer and a packed receive buffer; a single rank copies straight. */
const exchange: Formula = ({ ranks }, op, buffers) => (ranks === 1 ? 0 : viewBytes(op.reads, buffers) + viewBytes(op.writes, buffers));

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
  pre: (s, op) => rows(op) * projections(s, s.q, s.kv),
  preQ: (s, op) => rows(op) * projections(s, s.q, 0),
  preKv: (s, op) => rows(op) * projections(s, 0, s.kv),
  /** o and lse of the kernel, before they are copied into the arena. */
  attn: ({ w, ownQ, ownHeads }, op) => rows(op) * (w * ownQ + 4 * ownHeads),
  /** The new lse, a difference and its exponential; the partial output in fp32. */
  merge: ({ w, ownQ, ownHeads }, op) => rows(op) * ((w < 4 ? 4 * ownQ : 0) + 3 * 4 * ownHeads),
  post: (s, op) => {
    const { w, h, f } = s;
    return rows(op) * Math.max(w * h + normBytes(s), w * (2 * h + 3 * f), w * (3 * h + f), w * 4 * h);
  },
  postBwd: (s, op) => postBackward(s, rows(op)),
  preBwd: (s, op) => preBackward(s, rows(op)),
  attnBwd: (s, op) => attentionBackward(s, rows(op), rowsOf(op.kv)),
  loss: (s, op) => loss(s, rows(op)),
  /** dx in fp32, before it is added to the rows of the tokens. */
  embedBwd: ({ w, h }, op) => (w < 4 ? rows(op) * 4 * h : 0),
  /** The gradients in the parameter dtype; they are autograd's once the op ends. */
  emitGrads: ({ w }, op) => rows(op) * w,
};

/**
 * dq, dk, dv of the kernel. Inside aten's FlashAttention-2 backward (`_flash_attention_backward`): lse, softmax sums and dq in
 * fp32 for rows rounded up to 128 and head dim to 32, and dk, dv for every query head before they are summed over the group.
 */
function attentionBackward({ w, d, ownQ, ownKv, ownHeads, cuda }: Sizes, queries: number, keys: number): number {
  const results = w * (queries * ownQ + 2 * keys * ownKv);
  if (!cuda) return results;
  const rounded = Math.ceil(queries / 128) * 128;
  const dim = Math.ceil(d / 32) * 32;
  const perGroup = ownQ === ownKv ? 0 : 2 * w * keys * ownQ;
  return results + 4 * queries * ownHeads + 4 * rounded * ownHeads * (1 + dim) + perGroup;
}

/**
 * Three moments: cross entropy (logits, their fp32 copy, which becomes the gradient, and its cast; on CUDA also the exponentials
 * inside logsumexp), lm_head's gradient where dtypes differ, and the backward of the final norm.
 */
function loss({ w, h, v, cuda }: Sizes, t: number): number {
  const half = w < 4;
  const scores = half ? Math.max(w + 4 + w, cuda ? w + 4 + 4 : 0) : cuda ? 4 + 4 : 4;
  const entropy = t * (scores * v + 8 * h + 25);
  const headGradient = half ? t * (w * v + 10 * h + 8) + w * v * h : 0;
  const norm = t * (w * v + 28 * h + 4) + w * h;
  return Math.max(entropy, headGradient, norm);
}
