/**
 * The op vocabulary: what a schedule is made of.
 *
 * An op is plain data. It names the views it reads, writes and accumulates into, the stream it runs on and the
 * earlier ops it waits for. The worker has one handler per kind and decides nothing.
 */

export const STREAMS = ['compute', 'h2d', 'd2h', 'comm'] as const;
export type Stream = (typeof STREAMS)[number];

export const SECTIONS = ['embedForward', 'layerForward', 'lossForwardBackward', 'layerBackward', 'embedBackward', 'stepEnd'] as const;
export type SectionName = (typeof SECTIONS)[number];

/**
 * One row per op kind: the stream it runs on and how many views it reads, writes and accumulates into, in order.
 * `many` means one or more; the kinds that move data pair their i-th read with their i-th write.
 */
export interface OpKindRow {
  readonly stream: Stream;
  /** Views the op reads, by name and in the order the handler receives them. */
  readonly reads: readonly string[] | 'many';
  /** Views the op overwrites in full. */
  readonly writes: readonly string[] | 'many';
  /** Views the op adds to (read-modify-write). */
  readonly accumulates: readonly string[] | 'many';
  /** True when the op is done by ZeRO or the loader: simulated and timed, but not ordered by the plan. */
  readonly external: boolean;
  /** Roughly: what the handler does. */
  readonly roughly: string;
}

const kind = (
  stream: Stream,
  reads: OpKindRow['reads'],
  writes: OpKindRow['writes'],
  accumulates: OpKindRow['accumulates'],
  roughly: string,
  external = false,
): OpKindRow => ({ stream, reads, writes, accumulates, external, roughly });

export const OP_KINDS = {
  loadBatch: kind('h2d', [], ['tokenIds', 'positions', 'labels'], [], 'copy the micro-batch into the arena', true),
  embed: kind('compute', ['tokenIds'], ['x'], [], 'x = embedding(tokenIds)'),
  zero: kind('compute', [], 'many', [], 'fill the written views with 0'),
  pre: kind('compute', ['x', 'positions'], ['q', 'k', 'v'], [], 'q, k, v = rope(proj(norm1(x)))'),
  preQ: kind('compute', ['x', 'positions'], ['q'], [], 'only q of pre'),
  preKv: kind('compute', ['x', 'positions'], ['k', 'v'], [], 'only k, v of pre'),
  toHeads: kind('comm', 'many', 'many', [], 'all-to-all: every token share, all heads -> all tokens, own heads'),
  toSequence: kind('comm', 'many', 'many', [], 'all-to-all back: all tokens, own heads -> own tokens, all heads'),
  attn: kind('compute', ['q', 'k', 'v'], ['oPart', 'lsePart'], [], 'partial attention of q over k, v'),
  mergeFirst: kind('compute', ['oPart', 'lsePart'], ['oAcc', 'lse'], [], 'oAcc = oPart, lse = lsePart, in fp32'),
  merge: kind('compute', ['oPart', 'lsePart'], [], ['oAcc', 'lse'], 'online merge of two partial results by lse'),
  cast: kind('compute', 'many', 'many', [], 'write = read, in the dtype of write'),
  post: kind('compute', ['x', 'o'], ['y'], [], 'y = x + oProj(o); y = y + mlp(norm2(y))'),
  postBwd: kind('compute', ['x', 'o'], ['do'], ['dx', 'wgrad'], 'rerun post under autograd; dx becomes the residual part'),
  attnBwd: kind('compute', ['q', 'k', 'v', 'o', 'lse', 'do'], [], ['dq', 'dk', 'dv'], 'attention backward with the final o and lse'),
  preBwd: kind('compute', ['x', 'positions', 'dq', 'dk', 'dv'], [], ['dx', 'wgrad'], 'rerun pre under autograd'),
  loss: kind('compute', ['x', 'labels'], ['dx'], ['lossSum', 'wgrad'], 'cross entropy of norm(x) @ lmHead, and its gradients'),
  embedBwd: kind('compute', ['dx', 'tokenIds'], [], ['wgrad'], 'scatter-add dx into the embedding gradient'),
  emitGrads: kind('compute', ['wgrad'], [], [], 'cast weight gradients once and hand them to autograd'),
  fetch: kind('h2d', 'many', 'many', [], 'copy host -> hbm'),
  offload: kind('d2h', 'many', 'many', [], 'copy hbm -> host'),
  gather: kind('comm', [], [], [], 'ZeRO gathers the weights of the layer slot', true),
  release: kind('comm', [], [], [], 'ZeRO releases the weights of the layer slot', true),
  reduce: kind('comm', [], [], [], 'ZeRO reduces weight gradients', true),
  optimizerStep: kind('compute', [], [], [], 'optimizer step', true),
} as const satisfies Record<string, OpKindRow>;

export type OpKind = keyof typeof OP_KINDS;
export const OP_KIND_NAMES = Object.keys(OP_KINDS) as readonly OpKind[];

/** A half-open range [start, end). */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/**
 * A row range of one instance of a buffer. `bind` says which instance: `index` itself, `segment + index` or
 * `layer + index`, where the worker knows the segment and the layer it runs the section for.
 */
export interface Access {
  readonly buffer: number;
  readonly rows: Range;
  readonly bind: 'fixed' | 'segment' | 'layer';
  readonly index: number;
}

export interface Op {
  /** Position in its section. */
  readonly id: number;
  readonly kind: OpKind;
  readonly stream: Stream;
  /** Which layer of the segment the op belongs to, 0 .. segmentLayers - 1. */
  readonly layerSlot: number;
  /** Global token range of the chunk the op works on. */
  readonly tokens: Range;
  /** Global token range of keys and values, attention ops only. */
  readonly kv?: Range;
  readonly reads: readonly Access[];
  readonly writes: readonly Access[];
  readonly accumulates: readonly Access[];
  /** Ids of earlier ops of the same section that must be complete; ops of the same stream need none. */
  readonly waits: readonly number[];
  /** Peak bytes of tensors made inside the op, by formula. */
  readonly scratchBytes: number;
}

/** The ops that one autograd function call executes: ops [start, end) of the section, for one layer slot. */
export interface SectionPart {
  readonly layerSlot: number;
  readonly start: number;
  readonly end: number;
}

export interface Section {
  readonly name: SectionName;
  readonly ops: readonly Op[];
  /** In execution order: ascending slots in forward, descending in backward. Streams are joined after each part. */
  readonly parts: readonly SectionPart[];
}
