/** Old names of zero_optimization, which DeepSpeed puts into the place of new ones (`_process_deprecated_field`, config_utils.py). */
import type { DeepSpeedReport } from './deepspeedReport.js';
import { isObject, type JsonObject } from './parseJson.js';

interface Row {
  readonly old: string;
  readonly path: string;
  readonly value: (given: unknown) => unknown;
}

const offloaded = (given: unknown): unknown => (given === true ? { device: 'cpu' } : undefined);

const ROWS: readonly Row[] = [
  { old: 'cpu_offload', path: 'offload_optimizer', value: offloaded },
  { old: 'cpu_offload_param', path: 'offload_param', value: offloaded },
  { old: 'stage3_gather_fp16_weights_on_model_save', path: 'stage3_gather_16bit_weights_on_model_save', value: (given) => given },
];

/** The config under new names alone. */
export function withNewNames(config: JsonObject, report: DeepSpeedReport): JsonObject {
  const zero = config.zero_optimization;
  if (!isObject(zero)) return config;
  const found = ROWS.filter(({ old }) => Object.hasOwn(zero, old));
  const rest = Object.fromEntries(Object.entries(zero).filter(([key]) => !ROWS.some(({ old }) => old === key) && key !== PINNED));
  const entries = found.flatMap(({ old, path, value }) => {
    if (Object.hasOwn(rest, path)) {
      const text = ` is the old name of ${path}, which is given as well`;
      report.add({ path: `zero_optimization.${old}`, text, code: 'duplicate-key', hint: `keep ${path} alone` });
    }
    const taken = value(zero[old]);
    if (taken !== undefined) report.remarks.push(`deepspeed.zero_optimization.${old} is the old name of ${path}=${JSON.stringify(taken)}`);
    return taken === undefined ? [] : [[path, taken] as const];
  });
  if (Object.hasOwn(zero, PINNED)) report.remarks.push(`deepspeed.zero_optimization.${PINNED} has no effect: pin_memory has its place`);
  return { ...config, zero_optimization: { ...rest, ...Object.fromEntries(entries) } };
}

/** Taken by DeepSpeed and looked at nowhere (`set_new_param` is false). */
const PINNED = 'cpu_offload_use_pin_memory';
