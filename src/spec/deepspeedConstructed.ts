/** The optimizer and scheduler sections of a ds_config: DeepSpeed gives their params to a constructor, which refuses what it does not have. */
import { describe } from './describe.js';
import type { ModelDtype } from './dtype.js';
import { nearestKey } from './nearestKey.js';
import { OPTIMIZER_TYPES, OWN_NAMES, optimizerClass, optimizerFacts } from './deepspeedOptimizer.js';
import { isOptimizerOnHost } from './deepspeedOptimizerPlace.js';
import type { Problem } from './deepspeedReport.js';
import { DEEPSPEED, type Signature } from './deepspeedTable.js';
import { isObject, type JsonObject, valueIn } from './parseJson.js';
import type { ClusterSpec } from './types.js';

export interface ConstructedFacts {
  readonly stage: number;
  readonly dtype: ModelDtype;
  readonly device: ClusterSpec['device'];
  readonly numRanks: number;
}

/** Problems of both sections of a resolved config. A section without a type is none, for DeepSpeed too. */
export function constructedProblems(config: JsonObject, facts: ConstructedFacts): readonly Problem[] {
  return [...optimizerProblems(config, facts), ...schedulerProblems(config, facts)];
}

/** Parameters that DeepSpeed takes out before it calls a constructor of Adam's (`get_optimizer_configuration`). */
const ADAM_SWITCHES: Signature = {
  torch_adam: { default: false },
  adam_w_mode: { default: true },
  fp32_optimizer_states: { default: true },
};

function optimizerProblems(config: JsonObject, { stage, device }: ConstructedFacts): readonly Problem[] {
  const type = valueIn(config, ['optimizer', 'type']);
  if (typeof type !== 'string') return [];
  const facts = optimizerFacts(config);
  const path = 'optimizer.type';
  const unsupported = (text: string, hint: string): Problem => ({ path, text, hint, code: 'unsupported', details: { path } });
  if (facts === undefined) {
    const nearest = nearestKey(type, OPTIMIZER_TYPES);
    const hint = nearest === undefined ? `use ${OPTIMIZER_TYPES.join(', ')}` : `did you mean '${nearest}'?`;
    return [unsupported(`: ${JSON.stringify(type)} is not supported`, hint)];
  }
  const isAdam = OWN_NAMES.slice(0, 2).some((name) => name === type.toLowerCase());
  const signature = { ...DEEPSPEED.optimizers[optimizerClass(config)], ...(isAdam ? ADAM_SWITCHES : {}) };
  const params = paramProblems('optimizer', config, signature);
  if (facts.name === 'FusedLion' && device === 'cpu') {
    return [unsupported(': DeepSpeed has no Lion for a CPU but that of offload_optimizer', "use 'AdamW', or offload_optimizer to the cpu")];
  }
  if (facts.isUntested && stage > 0 && config.zero_allow_untested_optimizer !== true) {
    return [unsupported(`: ZeRO refuses ${type} unless told otherwise`, 'set zero_allow_untested_optimizer to true'), ...params];
  }
  if (facts.isUntested && isOptimizerOnHost(config)) {
    return [
      unsupported(`: ${type} is not planned on the host`, "use 'AdamW', 'Lion' or 'Adagrad', or remove offload_optimizer"),
      ...params,
    ];
  }
  return params;
}

/** What torch's schedulers need that no file can hold, or that DeepSpeed does not give them. */
const NOT_FROM_FILES = ['LambdaLR', 'MultiplicativeLR', 'SequentialLR', 'ChainedScheduler', 'ReduceLROnPlateau', 'LRScheduler'];
const OF_DEEPSPEED = ['WarmupLR', 'WarmupDecayLR', 'WarmupCosineLR', 'OneCycle', 'LRRangeTest'];

function schedulerProblems(config: JsonObject, { stage, dtype }: ConstructedFacts): readonly Problem[] {
  const type = valueIn(config, ['scheduler', 'type']);
  if (typeof type !== 'string') return [];
  const path = 'scheduler.type';
  const signature = Object.hasOwn(DEEPSPEED.schedulers, type) ? DEEPSPEED.schedulers[type] : undefined;
  if (signature === undefined || NOT_FROM_FILES.includes(type)) {
    const nearest = nearestKey(
      type,
      Object.keys(DEEPSPEED.schedulers).filter((name) => !NOT_FROM_FILES.includes(name)),
    );
    const why = signature === undefined ? 'DeepSpeed knows no scheduler of this name' : 'it cannot be made from a file';
    const hint = nearest === undefined || nearest === type ? `use ${OF_DEEPSPEED.join(', ')}` : `did you mean '${nearest}'?`;
    return [{ path, text: `: ${JSON.stringify(type)} is not supported: ${why}`, code: 'unsupported', hint, details: { path } }];
  }
  const params = paramProblems('scheduler', config, signature);
  if (OF_DEEPSPEED.includes(type) || (stage === 0 && dtype === 'float32')) return [...params, ...stepProblems(config)];
  const text = `: torch's ${type} refuses the optimizer that DeepSpeed wraps at ZeRO stage ${stage} in ${dtype}`;
  return [{ path, text, code: 'unsupported', hint: `use ${OF_DEEPSPEED.join(', ')}`, details: { path } }, ...params];
}

const POSITIVE = ['warmup_num_steps', 'lr_range_test_step_size', 'cycle_first_step_size'];

/** `ValueError`s of runtime/lr_schedules.py. */
function stepProblems(config: JsonObject): readonly Problem[] {
  const params = valueIn(config, ['scheduler', 'params']);
  if (!isObject(params)) return [];
  return POSITIVE.filter(
    (key) => Object.hasOwn(params, key) && params[key] !== null && !(Number.isInteger(params[key]) && Number(params[key]) > 0),
  ).map((key) => ({
    path: `scheduler.params.${key}`,
    text: `: expected a whole number > 0, found ${describe(params[key])}`,
    code: 'invalid-value',
    hint: 'give 1 or more',
  }));
}

type Section = 'optimizer' | 'scheduler';

function paramProblems(section: Section, config: JsonObject, signature: Signature): readonly Problem[] {
  const at = `${section}.params`;
  const params = valueIn(config, [section, 'params']);
  if (!isObject(params)) {
    if (section === 'optimizer') return [];
    return [
      { path: section, text: `.params: DeepSpeed needs them, found nothing`, code: 'missing-key', hint: 'write "params": {} at least' },
    ];
  }
  const missing = Object.keys(signature).filter((key) => !Object.hasOwn(signature[key] ?? {}, 'default') && !Object.hasOwn(params, key));
  return [
    ...Object.entries(params).flatMap(([key, value]) => paramProblem(section, key, value, signature)),
    ...missing.map((key) => ({
      path: at,
      text: `.${key}: expected a value, found nothing`,
      code: 'missing-key',
      hint: `give ${key}, which has no default`,
    })),
  ];
}

function paramProblem(section: Section, key: string, value: unknown, signature: Signature): readonly Problem[] {
  const path = `${section}.params.${key}`;
  if (key === 'max_grad_norm') {
    return [{ path, text: ': DeepSpeed refuses it as a parameter', code: 'unsupported', hint: 'write gradient_clipping at the top level' }];
  }
  if (!Object.hasOwn(signature, key)) {
    const nearest = nearestKey(key, Object.keys(signature));
    const hint = nearest === undefined ? `known parameters: ${Object.keys(signature).join(', ')}` : `did you mean '${nearest}'?`;
    return [
      {
        path,
        text: ': the constructor has no such parameter',
        code: 'unknown-key',
        hint,
        details: { key, path: `deepspeed.${section}.params`, nearest },
      },
    ];
  }
  const { default: fallback } = signature[key] ?? {};
  const expected = typeWord(fallback, section) ?? (value === null && fallback === undefined ? A_VALUE : undefined);
  if (expected === undefined || expected.takes(value)) return [];
  return [{ path, text: `: expected ${expected.words}, found ${describe(value)}`, code: 'invalid-value', hint: `give ${expected.words}` }];
}

interface TypeWord {
  readonly words: string;
  readonly takes: (value: unknown) => boolean;
}

/** Of a parameter without a default, of which no type is known. */
const A_VALUE: TypeWord = { words: 'a value', takes: () => false };

/**
 * The type of what stands there by default; a scheduler's number may be a list, one for each group of weights. Constructors and steps reckon with
 * numbers and lists, and fail on null, which is as good as false where a switch is asked for.
 */
function typeWord(value: unknown, section: Section): TypeWord | undefined {
  const takesLists = section === 'scheduler';
  if (typeof value === 'number')
    return { words: 'a number', takes: (given) => typeof given === 'number' || (takesLists && Array.isArray(given)) };
  if (typeof value === 'boolean') return { words: 'true or false', takes: (given) => typeof given === 'boolean' || given === null };
  if (Array.isArray(value)) return { words: 'a list', takes: Array.isArray };
  return undefined;
}
