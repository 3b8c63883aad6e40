/** The dtype of weights, from the run, the bf16 and fp16 sections of a ds_config and the device; and what DeepSpeed ties to it. */
import type { ModelDtype } from './dtype.js';
import type { DeepSpeedReport, Problem } from './deepspeedReport.js';
import type { JsonObject } from './parseJson.js';
import type { RunInput } from './runInput.js';
import type { ClusterSpec } from './types.js';

const SECTIONS = [
  { section: 'bf16', dtype: 'bfloat16' },
  { section: 'fp16', dtype: 'float16' },
] as const satisfies readonly { readonly section: string; readonly dtype: ModelDtype }[];

type Device = Pick<ClusterSpec, 'name' | 'device' | 'float16'>;

/**
 * The run's dtype where given, else what the sections say. Where a ds_config has neither section on, DeepSpeed trains in fp32; where one says
 * "auto", it is that one's dtype on a GPU, bfloat16 where both do, and float32 on a CPU.
 */
export function resolveDtype(config: JsonObject, { run, cluster }: DtypeFacts, report: DeepSpeedReport): ModelDtype {
  const on = SECTIONS.filter(({ section }) => enabled(config, section) === true);
  const [first] = on;
  if (on.length > 1) {
    report.add({
      path: '',
      text: '.bf16.enabled and deepspeed.fp16.enabled are both true',
      code: 'conflict',
      hint: 'set one of them to false',
    });
  }
  if (first !== undefined && run.dtype !== undefined && run.dtype !== first.dtype) report.add(disagreement(run.dtype, first, true));
  const off = SECTIONS.find(({ section, dtype }) => dtype === run.dtype && enabled(config, section) === false);
  if (off !== undefined) report.add(disagreement(off.dtype, off, false));
  const open = cluster.device === 'cuda' ? SECTIONS.find(({ section }) => enabled(config, section) === 'auto') : undefined;
  const dtype = run.dtype ?? first?.dtype ?? open?.dtype ?? 'float32';
  if (run.dtype === undefined && first === undefined && open === undefined && cluster.device === 'cuda') report.remarks.push(FP32_REMARK);
  if (dtype === 'float16') report.add(...withoutFp16(cluster));
  return dtype;
}

export interface DtypeFacts {
  readonly run: Pick<RunInput, 'dtype'>;
  readonly cluster: Device;
}

const FP32_REMARK = 'deepspeed has neither bf16 nor fp16 enabled, so that weights are fp32: "bf16": {"enabled": true} halves them';

function enabled(config: JsonObject, section: string): unknown {
  return ((config[section] ?? {}) as JsonObject).enabled;
}

function disagreement(found: ModelDtype, { section, dtype }: (typeof SECTIONS)[number], isOn: boolean): Problem {
  const other = isOn ? dtype : 'float32';
  return {
    path: '',
    text: `: run.dtype is '${found}' but deepspeed.${section}.enabled is ${isOn}`,
    code: 'conflict',
    hint: `use dtype '${other}', or set ${section}.enabled to ${!isOn} or 'auto'`,
  };
}

/** DeepSpeed asks its accelerator (engine.py, `_do_sanity_check`); that of a CPU says yes only where oneDNN has AVX512-FP16 or AMX-FP16. */
function withoutFp16({ name, device, float16 }: Device): readonly Problem[] {
  if (float16 ?? device === 'cuda') return [];
  return [
    {
      path: '',
      text: `: dtype 'float16' is for GPUs: DeepSpeed does not train in fp16 on ${name}`,
      code: 'unsupported',
      hint: "use dtype 'bfloat16' or 'float32', and bf16.enabled or neither in the ds_config",
    },
  ];
}

export interface Precision {
  readonly dtype: ModelDtype;
  readonly lossScale: number | undefined;
}

/** What DeepSpeed 0.19.8 refuses of a resolved config (runtime/precision_config.py), and what would never come to a step. */
export function precisionProblems(config: JsonObject, { dtype, lossScale = 1 }: Precision): readonly Problem[] {
  const fp16 = (config.fp16 ?? {}) as Fp16Section;
  const scale = fp16.loss_scale ?? 0;
  const negative = scale < 0 ? [outOfRange('loss_scale', '0, for a dynamic scale, or more', scale, 0)] : [];
  const found = [...negative, ...accumulationProblems(config, dtype)];
  if (dtype !== 'float16') return found;
  if (lossScale !== 1) {
    return [
      ...found,
      {
        path: '',
        text: `: run.lossScale is ${lossScale}, but in float16 the loss scale is DeepSpeed's`,
        code: 'conflict',
        hint: `set deepspeed.fp16.loss_scale to ${lossScale} for a static scale, or leave lossScale out for a dynamic one`,
      },
    ];
  }
  return scale === 0 ? [...found, ...dynamicScaleProblems(fp16)] : found;
}

interface Fp16Section {
  readonly loss_scale?: number;
  readonly initial_scale_power?: number;
  readonly loss_scale_window?: number;
  readonly hysteresis?: number;
  readonly min_loss_scale?: number;
}

/** DeepSpeed's defaults. */
const INITIAL_SCALE_POWER = 16;
const MIN_LOSS_SCALE = 1;
/** The scaled loss is fp32. */
const MAX_SCALE_POWER = 127;

function dynamicScaleProblems(fp16: Fp16Section): readonly Problem[] {
  const small = (['loss_scale_window', 'hysteresis', 'min_loss_scale'] as const).flatMap((key) => {
    const value = fp16[key] ?? 1;
    return value < 1 ? [outOfRange(key, 'at least 1', value, 1)] : [];
  });
  const power = fp16.initial_scale_power ?? INITIAL_SCALE_POWER;
  const nearest = Math.min(Math.max(power, 0), MAX_SCALE_POWER);
  if (power !== nearest) return [...small, outOfRange('initial_scale_power', `0 to ${MAX_SCALE_POWER}`, power, nearest)];
  const least = fp16.min_loss_scale ?? MIN_LOSS_SCALE;
  if (least <= 2 ** power) return small;
  return [
    ...small,
    {
      path: 'fp16.min_loss_scale',
      text: ` ${least} is above the initial scale 2^${power}`,
      code: 'invalid-value',
      hint: `set min_loss_scale to ${MIN_LOSS_SCALE}, or initial_scale_power to ${Math.ceil(Math.log2(least))}`,
    },
  ];
}

const ACCUMULATED_AS: Readonly<Record<ModelDtype, string>> = { float32: 'fp32', bfloat16: 'bf16', float16: 'fp16' };

/** ZeRO's optimizers accumulate in fp32 beside the weights' dtype; stage 0 has no mix (engine.py, `_do_optimizer_sanity_check`). */
function accumulationProblems(config: JsonObject, dtype: ModelDtype): readonly Problem[] {
  const path = 'data_types.grad_accum_dtype';
  const given = ((config.data_types ?? {}) as { readonly grad_accum_dtype?: string | null }).grad_accum_dtype;
  const { stage = 0 } = (config.zero_optimization ?? {}) as { readonly stage?: number };
  const works = stage === 0 ? [ACCUMULATED_AS[dtype]] : [...new Set([ACCUMULATED_AS[dtype], 'fp32'])];
  if (given === undefined || given === null || works.includes(given)) return [];
  return [
    {
      path,
      text: `: ${JSON.stringify(given)} is not supported for ${dtype} weights at ZeRO stage ${stage}`,
      code: 'unsupported',
      hint: `use ${works.map((one) => `'${one}'`).join(' or ')}`,
    },
  ];
}

/** `nearest` is what works that is nearest to what was found. */
function outOfRange(key: string, expected: string, found: number, nearest: number): Problem {
  return {
    path: `fp16.${key}`,
    text: `: expected ${expected}, found ${found}`,
    code: 'invalid-value',
    hint: `set fp16.${key} to ${nearest}, or leave it out`,
    details: { expected },
  };
}
