/** Ops that move or set data and compute nothing. */
import { DTYPE_BYTES } from '../../spec/dtype.js';
import type { ExchangeCopies } from './exchangeCopies.js';
import { type DrawnChunks, drawKind, drawTokens, NO_FLOPS, NONE, type OpFacts, type OpRow } from './row.js';
import type { OpSizes } from './sizes.js';
import { type AccessShape, bufferAt, viewBytes } from './views.js';

const common = {
  accumulates: [],
  external: false,
  tiled: false,
  temporaries: NONE,
  flops: NO_FLOPS,
  deterministic: true,
  draw: drawTokens,
} as const;

/** What is read and what is written; of an exchange its one copy, packing or unpacking. */
const bothSides = ({ op, buffers }: OpFacts): number => viewBytes(op.reads, buffers) + viewBytes(op.writes, buffers);

export const loadBatch: OpRow = {
  ...common,
  stream: 'compute',
  reads: [],
  writes: 'many',
  pairs: false,
  roughly: "copy the micro-batch's tables into their buffers",
  elementBytes: NONE,
  kernels: ({ op }) => op.writes.length,
  draw: drawKind,
};

export const zero: OpRow = {
  ...common,
  stream: 'compute',
  reads: [],
  writes: 'many',
  pairs: false,
  roughly: 'fill the written views with 0',
  elementBytes: ({ op, buffers }) => viewBytes(op.writes, buffers),
  kernels: ({ op }) => op.writes.length,
};

export const cast: OpRow = {
  ...common,
  stream: 'compute',
  reads: 'many',
  writes: 'many',
  pairs: true,
  roughly: 'write = read, in the dtype of write',
  elementBytes: bothSides,
  kernels: ({ op }) => op.writes.length,
};

export const copy: OpRow = {
  ...common,
  stream: 'link',
  reads: 'many',
  writes: 'many',
  pairs: true,
  roughly: 'write = read, from one pool to another',
  elementBytes: NONE,
  kernels: ({ op }) => op.writes.length,
  draw: (kind: string, { moved }: DrawnChunks) => `${kind} ${moved}`,
};

/**
 * A message as large as the head-sharded view for each pair: they travel one after the other, but a process group's own thread may hold
 * on to the last one's a little longer. A single rank copies straight.
 */
const messageBytes = ({ op, buffers, sizes: { ranks } }: OpFacts, side: 'reads' | 'writes'): number =>
  ranks === 1 ? 0 : viewBytes(op[side], buffers);

/** A pair is packed, or unpacked, in strided copies, and exchanged; `local` are the views with all heads. */
const exchangeKernels = (
  { buffers, sizes }: OpFacts,
  local: readonly AccessShape[],
  copiesOf: (copies: ExchangeCopies) => number,
): number =>
  local.reduce((sum, { buffer }) => {
    const { shape } = bufferAt(buffer, buffers);
    const isQuery = shape.slice(1).reduce((elements, length) => elements * length, 1) === sizes.q;
    return sum + copiesOf(isQuery ? sizes.copies.query : sizes.copies.keyValue) + (sizes.ranks === 1 ? 0 : 1);
  }, 0);

/** Sums of what is narrower than fp32 are cast back. */
const unpackKernels = ({ w }: OpSizes, { unpacked, summed }: ExchangeCopies): number =>
  unpacked + (summed && w < DTYPE_BYTES.float32 ? 1 : 0);

export const toHeads: OpRow = {
  ...common,
  stream: 'comm',
  reads: 'many',
  writes: 'many',
  pairs: true,
  roughly: 'all-to-all: every token share, all heads -> all tokens, own heads',
  temporaries: (facts) => messageBytes(facts, 'writes'),
  elementBytes: bothSides,
  kernels: (facts) => exchangeKernels(facts, facts.op.reads, ({ packed }) => packed),
};

export const toSequence: OpRow = {
  ...common,
  stream: 'comm',
  reads: 'many',
  writes: 'many',
  pairs: true,
  roughly: 'all-to-all back: all tokens, own heads -> own tokens, all heads; copies of a head are summed',
  temporaries: (facts) => messageBytes(facts, 'reads'),
  elementBytes: bothSides,
  kernels: (facts) => exchangeKernels(facts, facts.op.writes, (copies) => unpackKernels(facts.sizes, copies)),
};
