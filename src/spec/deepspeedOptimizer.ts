/**
 * The optimizer that DeepSpeed 0.19.8 makes of a ds_config's section (`_configure_basic_optimizer`, runtime/engine.py): its own kernels or
 * torch's, and what that keeps and takes for each parameter that it updates.
 */
import { isOptimizerOnHost } from './deepspeedOptimizerPlace.js';
import { isObject, type JsonObject, valueIn } from './parseJson.js';

export interface OptimizerFacts {
  /** The class: `FusedAdam`, `AdamW`. */
  readonly name: string;
  /** What its states are called. */
  readonly label: string;
  /** Bytes of states for each parameter, and of temporaries while all are updated together; both in fp32. */
  readonly stateBytes: number;
  readonly updateBytes: number;
  /** Not of DeepSpeed's own kernels. */
  readonly isTorch: boolean;
  /** One that ZeRO runs only where `zero_allow_untested_optimizer` is true (ZERO_SUPPORTED_OPTIMIZERS, zero/utils.py). */
  readonly isUntested: boolean;
}

type Params = JsonObject;

interface Row {
  readonly label: string;
  readonly states: (params: Params) => number;
  readonly update?: (params: Params) => number;
  readonly isUntested?: true;
}

const FP32 = 4;
const given = (params: Params, key: string): number => (Number(params[key] ?? 0) > 0 ? FP32 : 0);
const decay = (params: Params): number => given(params, 'weight_decay');
const ADAM = { label: 'Adam', states: () => 2 * FP32 } as const;
const LION = { label: 'Lion', states: () => FP32 } as const;
const amsgrad = (params: Params): number => (params.amsgrad === true ? FP32 : 0);

/** Of DeepSpeed's own, which update in place. */
const KERNELS: Readonly<Record<string, Row>> = {
  FusedAdam: ADAM,
  DeepSpeedCPUAdam: ADAM,
  FusedLion: LION,
  DeepSpeedCPULion: LION,
  DeepSpeedCPUAdagrad: { label: 'Adagrad', states: () => FP32 },
};

/**
 * Of torch.optim: the tensors of a flat weight's state, and the most that is alive beside it in a step, one weight after the other or
 * foreach. Measured (python/tests/test_update_memory.py); Adam's root of the second moments is there twice.
 */
const TORCH: Readonly<Record<string, Row>> = {
  Adam: { label: 'Adam', states: (params) => 2 * FP32 + amsgrad(params), update: (params) => 2 * FP32 + decay(params) },
  AdamW: { label: 'Adam', states: (params) => 2 * FP32 + amsgrad(params), update: () => 2 * FP32 },
  Adagrad: { label: 'Adagrad', states: () => FP32, update: () => 2 * FP32 },
  SGD: {
    label: 'momentum',
    states: (params) => given(params, 'momentum'),
    update: (params) => decay(params) + (params.nesterov === true ? FP32 : 0),
    isUntested: true,
  },
  Adadelta: { label: 'Adadelta', states: () => 2 * FP32, update: (params) => 2 * FP32 + decay(params), isUntested: true },
  Adamax: { label: 'Adamax', states: () => 2 * FP32, update: (params) => FP32 + decay(params), isUntested: true },
  NAdam: { label: 'NAdam', states: () => 2 * FP32, update: (params) => 2 * FP32 + decay(params), isUntested: true },
  RAdam: { label: 'RAdam', states: () => 2 * FP32, update: (params) => 5 * FP32 + decay(params), isUntested: true },
  RMSprop: {
    label: 'RMSprop',
    states: (params) => FP32 + given(params, 'momentum') + (params.centered === true ? FP32 : 0),
    update: (params) => FP32 + decay(params),
    isUntested: true,
  },
};

/** Names that DeepSpeed takes in any case; all others are torch.optim's, to the letter. */
export const OWN_NAMES = ['adam', 'adamw', 'adagrad', 'lion'] as const;

/** Undefined for a class that is not accounted for here. */
export function optimizerFacts(config: JsonObject): OptimizerFacts | undefined {
  const name = optimizerClass(config);
  const params = paramsOf(config);
  const row = KERNELS[name] ?? TORCH[name];
  if (row === undefined) return undefined;
  return {
    name,
    label: row.label,
    stateBytes: row.states(params),
    updateBytes: row.update?.(params) ?? 0,
    isTorch: KERNELS[name] === undefined,
    isUntested: row.isUntested === true,
  };
}

/** The class for a section's type, or the type itself where DeepSpeed has none of its own. */
export function optimizerClass(config: JsonObject): string {
  const type = (valueIn(config, ['optimizer', 'type']) ?? '') as string;
  const isOnHost = isOptimizerOnHost(config);
  const name = type.toLowerCase();
  if (name === 'adam' || name === 'adamw') return adamClass(name, paramsOf(config), isOnHost);
  if (name === 'lion') return isOnHost ? 'DeepSpeedCPULion' : 'FusedLion';
  if (name === 'adagrad') return isOnHost ? 'DeepSpeedCPUAdagrad' : 'Adagrad';
  return type;
}

/** `adam_w_mode` is true unless said otherwise, for both names. */
function adamClass(name: 'adam' | 'adamw', params: Params, isOnHost: boolean): string {
  if (params.torch_adam === true) return name === 'adamw' || params.adam_w_mode !== false ? 'AdamW' : 'Adam';
  return isOnHost ? 'DeepSpeedCPUAdam' : 'FusedAdam';
}

function paramsOf(config: JsonObject): Params {
  const params = valueIn(config, ['optimizer', 'params']);
  return isObject(params) ? params : {};
}

/** Every class that is accounted for, as a ds_config writes it. */
export const OPTIMIZER_TYPES: readonly string[] = [
  'Adam',
  'AdamW',
  'Lion',
  ...Object.keys(TORCH).filter((name) => !name.startsWith('Adam') || name === 'Adamax'),
];
