/** A family as its JSON file writes it down. Adding a family is adding such a file. */
import * as z from 'zod';
import type { Expression, Setting } from './settings.js';
import { PRIMITIVE_NAMES, type PrimitiveName } from '../../spec/modelCode.js';

const literal = z.union([z.number(), z.string(), z.boolean(), z.null()]);
const expression: z.ZodType<Expression> = z.lazy(() => z.union([literal, z.array(expression)]));

const configKey = z.union([z.string(), z.array(z.string()).min(1)]);
const setting = z.strictObject({
  size: configKey.optional(),
  number: configKey.optional(),
  flag: configKey.optional(),
  text: configKey.optional(),
  each: z.boolean().optional(),
  only: z.array(literal).min(1).optional(),
  else: expression.optional(),
  null: expression.optional(),
  compute: expression.optional(),
  given: z.string().optional(),
}) as unknown as z.ZodType<Setting>;

/**
 * `to` = op(`of`); a name may be given again, and later steps mean the last. `weight` is a module, whose `.weight` and, where `bias`
 * is true, `.bias` are used. All other keys are attributes: `style` and `module` as they stand, others expressions; one that is null
 * is left out.
 */
export interface WrittenStep {
  readonly op: PrimitiveName;
  readonly of: string | readonly string[];
  readonly to: string;
  readonly weight?: string | undefined;
  readonly bias?: Expression | undefined;
  /** The step is there where it is true. */
  readonly when?: Expression | undefined;
  readonly [attribute: string]: unknown;
}

const step = z.looseObject({
  op: z.enum(PRIMITIVE_NAMES),
  of: z.union([z.string(), z.array(z.string())]),
  to: z.string(),
  weight: z.string().optional(),
  bias: expression.optional(),
  when: expression.optional(),
}) as unknown as z.ZodType<WrittenStep>;

/** What is not run here: found where `key` holds anything but `only`; `why` says what works. */
export interface Requirement {
  readonly key: string;
  readonly only: readonly Expression[];
  /** What an absent key means; without it that is fine. */
  readonly else?: Expression;
  readonly why: string;
}

/** What sizes must be to each other, as transformers checks it: `that` is true, which the config `says` otherwise. */
export interface Check {
  readonly that: Expression;
  readonly says: string;
  readonly hint: string;
}

export interface WrittenFamily {
  readonly name: string;
  readonly modelTypes: readonly string[];
  readonly about: string;
  readonly requires: readonly Requirement[];
  /** By type (keyTypes.ts) the keys that the model's config class in transformers knows, whether or not they are read here. */
  readonly keys: Readonly<Record<string, readonly string[]>>;
  readonly checks: readonly Check[];
  readonly settings: Readonly<Record<string, Setting>>;
  /** Settings that each layer has its own of, `layer` being its number. Layers for which all are equal are of one class. */
  readonly layerSettings: Readonly<Record<string, Setting>>;
  readonly layers: string;
  readonly embed: readonly WrittenStep[];
  readonly pre: readonly WrittenStep[];
  readonly post: readonly WrittenStep[];
  /** The last norm: from x to y. */
  readonly head: readonly WrittenStep[];
  /** Logits = softcap * tanh(scale * (y weight + bias) / softcap). */
  readonly lmHead: { readonly weight: string; readonly bias: Expression; readonly scale: Expression; readonly softcap: Expression };
}

export const familySchema: z.ZodType<WrittenFamily> = z.strictObject({
  name: z.string(),
  modelTypes: z.array(z.string()).min(1),
  about: z.string(),
  requires: z
    .array(z.strictObject({ key: z.string(), only: z.array(expression).min(1), else: expression.optional(), why: z.string() }))
    .default([]),
  keys: z.record(z.string(), z.array(z.string()).min(1)),
  checks: z.array(z.strictObject({ that: expression, says: z.string(), hint: z.string() })).default([]),
  settings: z.record(z.string(), setting),
  layerSettings: z.record(z.string(), setting).default({}),
  layers: z.string(),
  embed: z.array(step).min(1),
  pre: z.array(step).min(3),
  post: z.array(step).min(1),
  head: z.array(step).min(1),
  lmHead: z.strictObject({
    weight: z.string(),
    bias: expression.default(false),
    scale: expression.default(1),
    softcap: expression.default(null),
  }),
}) as unknown as z.ZodType<WrittenFamily>;
