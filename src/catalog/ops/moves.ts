/** Ops that move or set data and compute nothing. */
import { DTYPE_BYTES } from '../../spec/dtype.js';
import type { ExchangeCopies } from './exchangeCopies.js';
import { type DrawnChunks, drawKind, drawTokens, NO_FLOPS, NONE, type OpFacts, type OpRow } from './row.js';
import type { OpSizes } from './sizes.js';
import { type AccessShape, bufferAt, type HeadGroupShape, viewBytes } from './views.js';

const common = {
  accumulates: [],
  external: false,
  tiled: false,
  temporaries: NONE,
  flops: NO_FLOPS,
  deterministic: true,
  draw: drawTokens,
} as const;

/** What is read and what is written. */
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
  { attribute: { heads }, buffers, sizes }: OpFacts,
  local: readonly AccessShape[],
  copiesOf: (copies: ExchangeCopies) => number,
): number =>
  pairsOf(local, heads).reduce((sum, { buffer }, pair) => {
    const { shape } = bufferAt(buffer, buffers);
    const isQuery = shape.slice(1).reduce((elements, length) => elements * length, 1) === sizes.q;
    const group = heads === undefined ? 0 : (heads.group ?? pair);
    const copies = (isQuery ? sizes.copies.query : sizes.copies.keyValue)(heads?.groups, group);
    return sum + copiesOf(copies) + (sizes.ranks === 1 ? 0 : 1);
  }, 0);

/** The view with all heads once for each that it is exchanged with. */
const pairsOf = (local: readonly AccessShape[], heads: HeadGroupShape | undefined): readonly AccessShape[] =>
  heads === undefined || heads.group !== undefined ? local : Array.from({ length: heads.groups }, () => local).flat();

/** Of its one copy, packing or unpacking. Of heads in groups a pair has those of one on both sides, and what comes back of one alone has zeros beside it. */
const exchangedBytes = ({ op, attribute: { heads }, buffers }: OpFacts, sharded: 'reads' | 'writes'): number => {
  if (heads === undefined) return viewBytes(op.reads, buffers) + viewBytes(op.writes, buffers);
  return 2 * viewBytes(op[sharded], buffers) + (sharded === 'reads' && heads.group !== undefined ? viewBytes(op.writes, buffers) : 0);
};

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
  elementBytes: (facts) => exchangedBytes(facts, 'writes'),
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
  elementBytes: (facts) => exchangedBytes(facts, 'reads'),
  kernels: (facts) => {
    const zeros = facts.attribute.heads?.group === undefined ? 0 : facts.op.writes.length;
    return zeros + exchangeKernels(facts, facts.op.writes, (copies) => unpackKernels(facts.sizes, copies));
  },
};
