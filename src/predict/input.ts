import type { Kernels } from '../catalog/kernels.js';
import type { OpSizes } from '../catalog/ops/index.js';
import type { Schedule } from '../schedule/schedule.js';
import type { ParallelLayout } from '../spec/parallelLayout.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';

/** What a prediction is made from. A plan has all of it. */
export interface PredictInput extends Schedule {
  readonly model: ModelSpec;
  readonly run: RunSpec;
  readonly cluster: ClusterSpec;
  readonly deepspeed: DeepSpeedConfig;
  readonly parameters: ParameterTable;
  readonly layout: ParallelLayout;
  readonly kernels: Kernels;
  /** Of all these, where they were found before. */
  readonly sizes?: OpSizes;
}
