/** The op vocabulary: one row per kind. A kind is a row here and a handler in the worker. */
import { attn, attnBwd, merge, mergeFirst } from './attention.js';
import { embed, embedBwd, emitGrads, rescale } from './ends.js';
import { loss, lossOnly, lossWeighted } from './loss.js';
import { cast, copy, loadBatch, toHeads, toSequence, zero } from './moves.js';
import type { OpRow } from './row.js';
import { post, postBwd, postBwdKept, postKeep, pre, preBwd, preKv, preQ } from './tokenwise.js';
import type { OpViews } from './views.js';
import { gather, optimizerStep, reduce, release } from './zero.js';

export const OP_ROWS = {
  loadBatch,
  embed,
  zero,
  pre,
  preQ,
  preKv,
  toHeads,
  toSequence,
  attn,
  mergeFirst,
  merge,
  cast,
  post,
  postKeep,
  postBwd,
  postBwdKept,
  attnBwd,
  preBwd,
  loss,
  lossWeighted,
  lossOnly,
  rescale,
  embedBwd,
  emitGrads,
  copy,
  gather,
  release,
  reduce,
  optimizerStep,
} satisfies Record<string, OpRow>;

export type OpKind = keyof typeof OP_ROWS;
export const OP_KIND_NAMES = Object.keys(OP_ROWS) as readonly OpKind[];

/** What the formulas read of an op. */
export interface OpShape extends OpViews {
  readonly kind: OpKind;
}

/** The worker's side of a row: what the plan's header carries of it. */
export type OpKindRow = Pick<OpRow, 'stream' | 'reads' | 'writes' | 'accumulates' | 'pairs' | 'external' | 'roughly'>;
