/** The straight-line programs of a model: steps as a family writes them down, and the instructions that the worker runs. */

/**
 * A weight that a step uses, by its name in the decoder layer or, at the ends, in the model; `part`: of its outputs. A `frozen` one
 * does not train: no gradient of it is formed.
 */
export interface WeightUse {
  readonly name: string;
  readonly shape: readonly number[];
  readonly part?: readonly [start: number, end: number];
  readonly frozen?: true;
}

export type StepAttributes = Readonly<Record<string, number | string | boolean>>;

/** `to` = op(`of`). Values are [rows, width] in the model dtype; every name is given once. */
export interface Step {
  readonly op: PrimitiveName;
  readonly of: readonly string[];
  readonly to: string;
  readonly width: number;
  readonly weights: readonly WeightUse[];
  readonly attributes: StepAttributes;
}

export const PRIMITIVE_NAMES = [
  'linear',
  'rmsnorm',
  'layernorm',
  'angles',
  'rope',
  'activation',
  'multiply',
  'add',
  'scale',
  'slice',
  'lookup',
] as const;
export type PrimitiveName = (typeof PRIMITIVE_NAMES)[number];

/**
 * What the worker does beside a step, or the reverse of one. `store`, `load` and `addTo` touch the views that an op is given: `start` and
 * `end`: the columns of the view that a value has.
 */
export const INSTRUCTION_NAMES = [
  ...PRIMITIVE_NAMES,
  'linearBwd',
  'rmsnormBwd',
  'layernormBwd',
  'ropeBwd',
  'activationBwd',
  'multiplyBwd',
  'sliceBwd',
  'lookupBwd',
  'cast',
  'store',
  'load',
  'addTo',
] as const;
export type InstructionName = (typeof INSTRUCTION_NAMES)[number];

/**
 * Reads values or views and makes `writes`; `into` names what is changed in place instead. `frees`: values that nothing after it
 * reads.
 */
export interface Instruction {
  readonly op: InstructionName;
  readonly reads: readonly string[];
  readonly writes: readonly string[];
  readonly into?: string;
  readonly frees: readonly string[];
  readonly weights: readonly WeightUse[];
  readonly attributes: StepAttributes;
}

/** What one op of the plan runs; `widths` of all values and views in it, in elements of a row. */
export interface Code {
  readonly instructions: readonly Instruction[];
  readonly widths: Readonly<Record<string, number>>;
}

/** What a layer of one class runs. `scale` and `softcap` are those of attention. */
export interface LayerCode {
  readonly attention: { readonly scale: number; readonly softcap: number | null };
  readonly pre: Code;
  readonly preQ: Code;
  readonly preKv: Code;
  readonly preBwd: Code;
  readonly post: Code;
  readonly postBwd: Code;
  /** `post` that keeps what `postBwdKept` would form again by products. */
  readonly postKeep: Code;
  readonly postBwdKept: Code;
}

/** Logits are scale * (y weight + bias), z, or softcap * tanh(z / softcap). A tied one has the embedding's weight and none of its own. */
export interface LmHead {
  readonly module: string;
  readonly weights: readonly WeightUse[];
  readonly scale: number;
  readonly softcap: number | null;
}

/** Everything of a model that its family decides. Modules and weights by their names in the Hugging Face model. */
export interface ModelCode {
  /** Module that holds the decoder layers. */
  readonly layers: string;
  readonly classes: readonly LayerCode[];
  /** Class of each layer. */
  readonly classOf: readonly number[];
  readonly embed: Code;
  readonly embedBwd: Code;
  readonly head: Code;
  readonly headBwd: Code;
  readonly lmHead: LmHead;
}

/** Columns of what `postKeep` keeps of a row, in the kind of layer that keeps most; 0: nothing that a reverse forms again is a product. */
export function keptWidth({ classes }: Pick<ModelCode, 'classes'>): number {
  return Math.max(...classes.map(({ postBwdKept }) => postBwdKept.widths['@kept'] ?? 0));
}
