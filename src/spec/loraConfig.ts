/** LoRA as peft's own adapter_config.json says it: what is read of it, and what of it is refused by name. */
import * as z from 'zod';
import { count } from './count.js';
import { FpdtError } from './errors.js';
import { describe } from './describe.js';
import { type JsonObject, parseWith, readJsonObject, unknownKey } from './parseJson.js';

/** Names of modules, or a regular expression over whole names. */
export type ModulePattern = string | readonly string[];

export interface LoraConfig {
  readonly rank: number;
  readonly alpha: number;
  /** Divides by the root of the rank in place of the rank. */
  readonly usesRootOfRank: boolean;
  readonly targets: ModulePattern;
  readonly excluded: ModulePattern | undefined;
  /** Decoder layers that have adapters; undefined: all. */
  readonly layers: readonly number[] | undefined;
  /** Of single modules, by patterns of their names. */
  readonly ranks: Readonly<Record<string, number>>;
  readonly alphas: Readonly<Record<string, number>>;
  /** What peft is given: the keys above, and those that do not matter to training. */
  readonly peft: JsonObject;
}

/** Targets every linear module of the decoder layers. */
export const ALL_LINEAR = 'all-linear';

const modules = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);
const alpha = z.number().refine((value) => value !== 0, 'expected a number that is not 0');
const schema = z.looseObject({
  r: count.default(8),
  lora_alpha: alpha.default(8),
  target_modules: modules,
  exclude_modules: modules.nullish(),
  layers_to_transform: z.union([z.int().min(0), z.array(z.int().min(0)).min(1)]).nullish(),
  use_rslora: z.boolean().default(false),
  rank_pattern: z.record(z.string(), count).default({}),
  alpha_pattern: z.record(z.string(), alpha).default({}),
});

/** Keys that are handed to peft: it initialises and writes down by them. */
const READ = Object.keys(schema.shape);
const PASSED = ['task_type', 'base_model_name_or_path', 'revision', 'init_lora_weights'];
/** Keys that say how peft was used, or that matter only beside one that is refused. */
const IGNORED = [
  'auto_mapping',
  'peft_version',
  'inference_mode',
  'fan_in_fan_out',
  'megatron_core',
  'qalora_group_size',
  'runtime_config',
];

/** Values that are run here, and what works in place of the others. */
const ONLY: Readonly<Record<string, readonly [values: readonly unknown[], why: string]>> = {
  peft_type: [['LORA'], 'other adapters change more than linear modules'],
  lora_dropout: [[0], 'recomputed activations would draw other masks'],
  bias: [['none'], 'adapters alone train; --freeze without --lora can leave biases to train'],
  init_lora_weights: [[true, false, 'gaussian'], 'other starts change the base weights, or need data'],
  modules_to_save: [[null, []], 'no copies of whole modules train'],
  use_dora: [[false], 'plain LoRA is run'],
  use_qalora: [[false], 'plain LoRA is run'],
  use_bdlora: [[null], 'plain LoRA is run'],
  lora_bias: [[false], 'adapters have no bias'],
  layers_pattern: [[null, '', []], 'layers_to_transform counts the decoder layers'],
  layer_replication: [[null], 'a layer is run once'],
  target_parameters: [[null, []], 'adapters are of modules: name them in target_modules'],
  trainable_token_indices: [[null], 'no part of an embedding trains'],
  alora_invocation_tokens: [[null], 'plain LoRA is run'],
  megatron_config: [[null], 'modules are those of transformers'],
  loftq_config: [[null, {}], 'weights are not quantised'],
  eva_config: [[null], 'init_lora_weights is true, false or gaussian'],
  corda_config: [[null], 'init_lora_weights is true, false or gaussian'],
  lora_ga_config: [[null], 'init_lora_weights is true, false or gaussian'],
  velora_config: [[null], 'plain LoRA is run'],
  monteclora_config: [[null], 'plain LoRA is run'],
  arrow_config: [[null], 'there is one adapter'],
  kasa_config: [[null], 'plain LoRA is run'],
  ensure_weight_tying: [[false], 'the ends of a model have no adapters'],
};

/** How errors name it. */
const WHAT = 'lora config';

/** An adapter_config.json, by path or as an object. Throws `unsupported` and the errors of strict parsing. */
export function parseLora(input: string | JsonObject): LoraConfig {
  const given = readJsonObject(input, WHAT);
  const known = [...READ, ...PASSED, ...IGNORED, ...Object.keys(ONLY)];
  for (const key of Object.keys(given)) if (!known.includes(key)) throw unknownKey(key, known, WHAT);
  for (const [key, [values, why]] of Object.entries(ONLY)) refuseOther(key, given[key], values, why);
  if (given['target_modules'] === undefined || given['target_modules'] === null) {
    throw new FpdtError(`${WHAT}.target_modules: expected names of modules, found ${describe(given['target_modules'])}`, {
      code: 'missing-key',
      hint: `'${ALL_LINEAR}' is every linear module of the decoder layers`,
    });
  }
  const config = parseWith(schema, given, WHAT);
  const layers = config.layers_to_transform ?? undefined;
  if (layers !== undefined && typeof config.target_modules === 'string') {
    throw new FpdtError(`${WHAT}.layers_to_transform: peft takes it with a list of target_modules only`, {
      code: 'invalid-value',
      hint: 'list the names of target_modules, e.g. ["q_proj", "v_proj"]',
    });
  }
  return {
    rank: config.r,
    alpha: config.lora_alpha,
    usesRootOfRank: config.use_rslora,
    targets: config.target_modules,
    excluded: config.exclude_modules ?? undefined,
    layers: layers === undefined ? undefined : [layers].flat(),
    ranks: config.rank_pattern,
    alphas: config.alpha_pattern,
    peft: Object.fromEntries(Object.entries(given).filter(([key]) => READ.includes(key) || PASSED.includes(key))),
  };
}

function refuseOther(key: string, given: unknown, values: readonly unknown[], why: string): void {
  if (given === undefined || values.some((value) => JSON.stringify(value) === JSON.stringify(given))) return;
  throw new FpdtError(`${WHAT}.${key}: ${describe(given)} is not supported`, {
    code: 'unsupported',
    hint: `${values.map((value) => JSON.stringify(value)).join(' or ')} is: ${why}`,
    details: { key },
  });
}
