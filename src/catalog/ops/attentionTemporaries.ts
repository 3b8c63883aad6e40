/**
 * Bytes that attention makes inside, by kernel: its results, before they are copied into the arena, and what each kernel has of its own. Of kernels
 * that no machine here has run, what their sources allocate. Where PyTorch is older than 2.13 all have an output of their own.
 */
import type { OpFacts } from './row.js';
import { rowsOf } from './views.js';

interface Temporaries {
  readonly forward: (facts: OpFacts) => number;
  readonly backward: (facts: OpFacts) => number;
}

/** Rows of queries and keys, and head dims, are rounded up to these. */
const BLOCK_ROWS = 128;
const BLOCK_DIM = 32;
const FP32 = 4;

/** The kernels of NVIDIA's later chips: dq, and with grouped heads dk and dv, summed in fp32; lse once more, in powers of two (hopper/flash_api.cpp). */
const HOPPER: Temporaries = {
  forward: (facts) => (leavesOutQueries(facts) ? 2 : 1) * forwardResults(facts),
  backward: (facts) => {
    const { op, rows, sizes } = facts;
    const { d, ownQ, ownKv, ownHeads } = sizes;
    const dim = roundUp(d, BLOCK_DIM);
    const keySums = ownQ === ownKv ? 0 : 2 * FP32 * (ownKv / d) * dim * roundUp(rowsOf(op.kv), BLOCK_ROWS);
    const sums = FP32 * ownHeads * roundUp(rows, BLOCK_ROWS) * (2 + dim);
    return gradients(facts) + sums + keySums + leftOut(facts) + documentLse(facts);
  },
};

const KERNELS: Readonly<Record<string, Temporaries>> = {
  /** Measured to the byte on the worker's handlers (test/catalog/temporaries.test.ts). */
  reference: {
    forward: (facts) => Math.max(forwardResults(facts), writtenOut(facts, 3)),
    backward: (facts) => {
      const { w, ownQ } = facts.sizes;
      return Math.max(gradients(facts), writtenOut(facts, 5) + (w < FP32 ? 2 * FP32 * facts.rows * ownQ : 0));
    },
  },
  cpu_flash: { forward: (facts) => (leavesOutQueries(facts) ? 2 : 1) * forwardResults(facts), backward: (facts) => gradients(facts) },
  /**
   * aten's FlashAttention-2 (`_flash_attention_backward`): softmax sums and dq in fp32 for rows rounded up to 128 and head dim to 32, and
   * dk, dv for every query head before they are summed over the group.
   */
  flash2: {
    forward: (facts) => (leavesOutQueries(facts) ? 2 : 1) * forwardResults(facts),
    backward: (facts) => {
      const { rows, sizes } = facts;
      const sums = FP32 * sizes.ownHeads * roundUp(rows, BLOCK_ROWS) * (1 + roundUp(sizes.d, BLOCK_DIM));
      return gradients(facts) + sums + perQueryHead(facts) + leftOut(facts) + documentLse(facts);
    },
  },
  /** dq and the sums of its softmax in fp32, and dk, dv for every query head (cudnn-frontend, CompositeSDPABackwardNode). */
  cudnn: {
    forward: (facts) => forwardResults(facts),
    backward: (facts) => gradients(facts) + FP32 * facts.rows * (facts.sizes.ownQ + 2 * facts.sizes.ownHeads) + perQueryHead(facts),
  },
  flash3: HOPPER,
  flash4: HOPPER,
};

/** Throws a RangeError for a kernel that is not there. */
export function attentionTemporaries(kernel: string): Temporaries {
  const found = KERNELS[kernel];
  if (found === undefined) throw new RangeError(`nothing is known of the temporaries of the attention kernel ${kernel}`);
  return found;
}

/** o and lse. */
function forwardResults({ rows, sizes: { w, ownQ, ownHeads } }: OpFacts): number {
  return rows * (w * ownQ + FP32 * ownHeads);
}

/** dq, dk and dv. */
function gradients({ op, rows, sizes: { w, ownQ, ownKv } }: OpFacts): number {
  return w * (rows * ownQ + 2 * rowsOf(op.kv) * ownKv);
}

/** dk and dv of every query head, before those of a group are summed. */
function perQueryHead({ op, sizes: { w, ownQ, ownKv } }: OpFacts): number {
  return ownQ === ownKv ? 0 : 2 * w * rowsOf(op.kv) * ownQ;
}

/** Where queries see no key: dq of all, and lse of those that do, which is no longer in one piece. */
function leftOut(facts: OpFacts): number {
  const { rows, sizes } = facts;
  return leavesOutQueries(facts) ? rows * (sizes.w * sizes.ownQ + FP32 * sizes.ownHeads) : 0;
}

/** lse of the rows of a document, which do not lie in one piece. */
function documentLse({ rows, sizes: { packing, ownHeads } }: OpFacts): number {
  return packing ? FP32 * rows * ownHeads : 0;
}

/** A window that ends before the last query: the kernel takes the queries that see a key, and a whole result is made around theirs. */
function leavesOutQueries({ op, attribute: { mask } }: OpFacts): boolean {
  return mask?.kind === 'window' && op.kv !== undefined && op.tokens.end > op.kv.end - 1 + mask.window;
}

/**
 * `reference` forms matrices of queries * keys for every head, of which `count` are alive at once, beside a number for each query
 * and values (or their gradients) for every query head.
 */
function writtenOut({ op, rows, sizes: { ownQ, ownHeads } }: OpFacts, count: number): number {
  const keys = rowsOf(op.kv);
  return FP32 * rows * ownHeads * (count * keys + 1) + FP32 * keys * ownQ;
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
