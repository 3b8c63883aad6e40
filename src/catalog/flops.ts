/** Work of one op on one rank: FLOPs by the rate they run at, and HBM bytes of its element-wise part. */
import { DTYPE_BYTES } from '../spec/dtype.js';
import type { ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';
import { type BufferShape, type OpShape, type RowRange, rowsOf, viewBytes } from './opShape.js';

export interface OpWork {
  readonly matmulFlops: number;
  readonly attentionForwardFlops: number;
  readonly attentionBackwardFlops: number;
}

const NO_WORK: OpWork = { matmulFlops: 0, attentionForwardFlops: 0, attentionBackwardFlops: 0 };

/**
 * FLOPs of an op. A linear layer is 2 * rows * inputs * outputs forward and twice that backward; *_bwd kinds rerun their
 * forward first. Attention is 4 * pairs * heads * headDim forward and 2.5 times that backward (FlashAttention-2, which
 * recomputes the scores), where pairs counts only what the causal mask leaves.
 */
export function opFlops(op: OpShape, model: ModelSpec, run: RunSpec): OpWork {
  const matmul = (flops: number): OpWork => ({ ...NO_WORK, matmulFlops: flops });
  const { hiddenSize: h, headDim: d, numHeads, numKvHeads, mlpWidth: f, vocabSize: v } = model;
  const rows = rowsOf(op.reads[0]?.rows);
  const queries = 2 * rows * h * numHeads * d;
  const keyValues = 2 * rows * h * 2 * numKvHeads * d;
  const post = queries + 2 * rows * 3 * h * f;
  const attention = 4 * causalPairs(op.tokens, op.kv ?? op.tokens) * (numHeads / run.sequenceParallelSize) * d;
  switch (op.kind) {
    case 'pre':
      return matmul(queries + keyValues);
    case 'preQ':
      return matmul(queries);
    case 'preKv':
      return matmul(keyValues);
    case 'post':
      return matmul(post);
    case 'postBwd':
      return matmul(3 * post);
    case 'preBwd':
      return matmul(3 * (queries + keyValues));
    case 'loss':
      return matmul(3 * 2 * rows * h * v);
    case 'attn':
      return { ...NO_WORK, attentionForwardFlops: attention };
    case 'attnBwd':
      return { ...NO_WORK, attentionBackwardFlops: 2.5 * attention };
    default:
      return NO_WORK;
  }
}

/** Query-key pairs with key <= query. */
export function causalPairs(query: RowRange, key: RowRange): number {
  const queries = rowsOf(query);
  const keys = rowsOf(key);
  if (key.end <= query.start) return queries * keys;
  const first = Math.max(query.start, key.start);
  const last = Math.min(query.end, key.end);
  const diagonal = Math.max(0, last - first);
  const before = Math.max(0, Math.min(key.end, query.start) - key.start) * queries;
  const triangle = (diagonal * (diagonal + 1)) / 2;
  const after = Math.max(0, query.end - Math.max(last, query.start)) * diagonal;
  return before + triangle + after;
}

/**
 * HBM bytes of an op: its views, read once and written once (accumulated: both), its temporaries written and read once, and
 * the weights it multiplies by. An upper estimate for kernels that fuse.
 */
export function opBytes(
  op: OpShape & { readonly scratchBytes: number },
  model: ModelSpec,
  run: RunSpec,
  parameters: ParameterTable,
  buffers: readonly BufferShape[],
): number {
  const views = viewBytes(op.reads, buffers) + viewBytes(op.writes, buffers) + 2 * viewBytes(op.accumulates, buffers);
  if (op.kind === 'attn' || op.kind === 'attnBwd') return views;
  return views + 2 * op.scratchBytes + weightElements(op.kind, model, parameters) * DTYPE_BYTES[run.dtype];
}

function weightElements(kind: string, model: ModelSpec, { numPreElements, numLayerElements }: ParameterTable): number {
  switch (kind) {
    case 'pre':
    case 'preQ':
    case 'preKv':
      return numPreElements;
    case 'post':
      return numLayerElements - numPreElements;
    case 'preBwd':
      return 2 * numPreElements;
    case 'postBwd':
      return 2 * (numLayerElements - numPreElements);
    case 'loss':
      return 2 * model.vocabSize * model.hiddenSize;
    default:
      return 0;
  }
}
