/** The nouns of a section: ops, the views they name, and their attributes. What each kind means is its row in catalog/ops. */
import type { OpKind } from '../catalog/ops/index.js';

/** A half-open range [start, end). */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** Rows of one instance of a buffer: instance `index`, plus the argument of parameter number `param` unless that is -1. */
export interface Access {
  readonly buffer: number;
  readonly rows: Range;
  readonly param: number;
  readonly index: number;
}

export interface Op {
  /** Position in its section. */
  readonly id: number;
  readonly kind: OpKind;
  /** One of the plan's streams. */
  readonly stream: string;
  /** Global token range of the chunk the op works on. */
  readonly tokens: Range;
  /** Global token range of keys and values: of attention ops, and of those that are left out with them, see documents.ts. */
  readonly kv?: Range;
  /** Which of the plan's attributes; absent: none. */
  readonly attribute?: number;
  readonly reads: readonly Access[];
  readonly writes: readonly Access[];
  readonly accumulates: readonly Access[];
  /** Ids of earlier ops of the same section that must be complete; ops of the same stream need none. */
  readonly waits: readonly number[];
  /** Peak bytes of tensors made inside the op, by formula. */
  readonly scratchBytes: number;
}

/**
 * Which keys a query sees, by their global positions in the op's `tokens` and `kv`. `full`: all of them; `causal`: those not
 * after it, where both ranges end together (a rectangle aligned at the bottom right); `window`: of these the last `window`.
 */
export type Mask = { readonly kind: 'full' } | { readonly kind: 'causal' } | { readonly kind: 'window'; readonly window: number };

/**
 * Group `group` of the groups of equal size that a rank's heads are cut into, in order. Without a number an exchange is of all groups: of one
 * view with all heads, and a head-sharded one for each.
 */
export interface HeadGroup {
  readonly groups: number;
  readonly group?: number;
}

/** What an op carries beside its views. Records are interned in the plan. */
export interface Attribute {
  readonly mask?: Mask;
  /** Row tiles that a token-wise op works through one after the other. */
  readonly tiles?: number;
  /** Of the heads, what the op works on; absent: all. */
  readonly heads?: HeadGroup;
}

/** What the values behind a parameter are, `layer` relative to the layer of the call. */
export interface Role {
  readonly value: 'hidden' | 'hiddenGradient' | 'attentionOutput' | 'internals';
  readonly layer: number;
}

/**
 * A parameter of a section: a call binds it to an instance. `entry` is the value its instances must hold when the call begins, `exit`
 * what they hold when it ends; a parameter that is only written has no entry, one that is only read no exit.
 */
export interface Parameter {
  readonly name: string;
  readonly entry?: Role;
  readonly exit?: Role;
}

/** Straight-line ops, written once for a class of layers. */
export interface Section {
  readonly name: string;
  readonly params: readonly Parameter[];
  readonly ops: readonly Op[];
}
