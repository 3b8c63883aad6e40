/** Keys of a ds_config that DeepSpeed 0.19.8 takes, but that change nothing here, or more than a plan says. One sentence each. */
import { OURS } from './deepspeedOurs.js';
import { isOptimizerOnHost } from './deepspeedOptimizerPlace.js';
import { isObject, valueIn } from './parseJson.js';
import type { DeepSpeedConfig, RunSpec } from './types.js';

type Run = Pick<RunSpec, 'dtype' | 'zeroStage'>;

interface Row {
  readonly path: string;
  /** True for values that are remarked on. */
  readonly when: (value: unknown, config: DeepSpeedConfig, run: Run) => boolean;
  readonly text: string;
}

const on = (value: unknown): boolean => value === true;
const off = (value: unknown): boolean => value === false;

const SLOWER = 'costs time that is not in the predicted step: it makes DeepSpeed wait for the device';
const COARSER = 'may have more than a layer gathered at once: memory is planned layer by layer';

const ROWS: readonly Row[] = [
  {
    path: 'zero_optimization.contiguous_gradients',
    when: (value, config, { zeroStage }) => off(value) && isOptimizerOnHost(config) && zeroStage < 3,
    text: 'has no effect: with the optimizer on the host DeepSpeed copies gradients into buckets',
  },
  {
    path: 'zero_optimization.offload_optimizer.device',
    when: (value, _, { zeroStage }) => value === 'nvme' && zeroStage < 3,
    text: 'is as good as "cpu": DeepSpeed 0.19.8 has a disk for stage 3 alone',
  },
  {
    path: 'zero_optimization.offload_optimizer.device',
    when: (value, _, { zeroStage }) => value === 'nvme' && zeroStage === 3,
    text: 'takes disk at every rank in nvme_path, for which there is room or not when the run starts',
  },
  {
    path: 'zero_optimization.offload_param.device',
    when: (value, _, { zeroStage }) => value === 'nvme' && zeroStage === 3,
    text: 'takes disk at every rank in nvme_path, for which there is room or not when the run starts; none is read ahead',
  },
  {
    path: 'zero_optimization.offload_optimizer.fast_init',
    when: on,
    text: 'has no effect: it is for weights that are on a disk too',
  },
  {
    path: 'zero_optimization.allgather_partitions',
    when: off,
    text: 'has no effect: DeepSpeed 0.19.8 gathers updated weights in any case',
  },
  {
    path: 'zero_optimization.offload_param.device',
    when: (value, _, { zeroStage }) => (value === 'cpu' || value === 'nvme') && zeroStage < 3,
    text: 'has no effect: only ZeRO stage 3 has weights that may be away',
  },
  {
    path: 'zero_optimization.zero_hpz_partition_size',
    when: (value, _, { zeroStage }) => Number(value) > 1 && zeroStage < 3,
    text: 'has no effect: only ZeRO stage 3 gathers weights in backward',
  },
  { path: 'disable_allgather', when: on, text: 'has no effect: DeepSpeed 0.19.8 does not look at it' },
  {
    path: 'seq_parallel_communication_data_type',
    when: (value) => typeof value === 'string',
    text: 'has no effect: heads are exchanged by the plan, in the dtype of its buffers',
  },
  {
    path: 'activation_checkpointing',
    when: (value) => isObject(value) && Object.keys(value).length > 0,
    text: 'has no effect: what is kept, moved and recomputed is the plan',
  },
  { path: 'zero_optimization.leaf_module', when: isObject, text: COARSER },
  { path: 'zero_optimization.stage3_module_granularity_threshold', when: (value) => typeof value === 'number' && value > 0, text: COARSER },
  { path: 'zero_optimization.enable_sanity_checks', when: on, text: SLOWER },
  { path: 'wall_clock_breakdown', when: on, text: SLOWER },
  { path: 'memory_breakdown', when: on, text: SLOWER },
  { path: 'comms_logger.enabled', when: on, text: SLOWER },
  { path: 'flops_profiler.enabled', when: on, text: SLOWER },
];

export function deepspeedRemarks(config: DeepSpeedConfig, run: Run): readonly string[] {
  const found = ROWS.filter(({ path, when }) => when(at(config, path), config, run)).map(({ path, text }) => `deepspeed.${path} ${text}`);
  const hysteresis = hysteresisRemark(run, config);
  return [...readingRemarks(config), ...found, ...(hysteresis === undefined ? [] : [hysteresis])];
}

/** Of what was found when the config was read. */
function readingRemarks(config: DeepSpeedConfig): readonly string[] {
  return (valueIn(config, [OURS, 'remarks']) ?? []) as readonly string[];
}

function at(config: DeepSpeedConfig, path: string): unknown {
  return path.split('.').reduce<unknown>((value, key) => (isObject(value) ? value[key] : undefined), config);
}

/** LossScaleConfig of runtime/fp16/loss_scaler.py has no hysteresis; ZeRO's DynamicLossScaler has. */
function hysteresisRemark({ dtype, zeroStage }: Run, { fp16 }: DeepSpeedConfig): string | undefined {
  const { hysteresis = 1, loss_scale: scale = 0 } = (fp16 ?? {}) as { readonly hysteresis?: number; readonly loss_scale?: number };
  if (dtype !== 'float16' || zeroStage !== 0 || scale !== 0 || hysteresis === 1) return undefined;
  return `fp16.hysteresis=${hysteresis} has no effect: without ZeRO DeepSpeed halves the loss scale at every overflow`;
}
