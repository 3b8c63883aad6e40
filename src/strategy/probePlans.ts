/**
 * Small plans of a model that are run to measure a machine: its own layers, a few of them, on a few chunks of the size of the run's.
 * Between them they have every kind of op and every instruction of the model's code, long rows and short ones.
 */
import { fewerLayers } from '../catalog/fewerLayers.js';
import { parseModel } from '../catalog/index.js';
import { devicePool, poolsOf } from '../catalog/pools.js';
import { parseSpecs } from '../catalog/specs.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import type { ModelDtype } from '../spec/dtype.js';
import { readHfConfig } from '../spec/hfConfig.js';
import { readDeepSpeed } from '../spec/deepspeedFile.js';
import type { JsonObject } from '../spec/parseJson.js';
import type { RunInput } from '../spec/runInput.js';
import type { ClusterSpec } from '../spec/types.js';
import { estimator } from './evaluator.js';
import { mayFit } from './mayFit.js';
import { type PlanInput, planRun } from './planRun.js';
import { settingOf } from './setting.js';

export interface ProbeInput {
  /** A Hugging Face config.json or its folder, or what is in it. */
  readonly model: string | JsonObject;
  readonly cluster: ClusterSpec;
  /** Tokens of a chunk of all ranks. */
  readonly chunkTokens: number;
  readonly dtype?: ModelDtype | undefined;
  /** Left out: ZeRO-3 with PyTorch's AdamW. */
  readonly deepspeed?: string | JsonObject | undefined;
}

export function probePlans(input: ProbeInput): Promise<readonly ExecutionPlan[]> {
  return Promise.all(probesOf(input).map(planRun));
}

/** Whether all of them fit, without planning one. */
export function probesFit(input: ProbeInput): boolean {
  return probesOf(input).every((probe) => {
    const { deepspeed, ...specs } = parseSpecs(probe);
    return mayFit(settingOf({ ...specs, deepspeed: deepspeed.config }), estimator());
  });
}

type ProbeRun = Omit<RunInput, 'seqLen'> & { readonly numChunks: number };

function probesOf({ model, cluster, chunkTokens, dtype, deepspeed }: ProbeInput): readonly PlanInput[] {
  const { config } = readHfConfig(model);
  const made = { cluster: { ...cluster }, deepspeed: readDeepSpeed(deepspeed ?? defaultConfig(dtype)).config };
  const probe = (least: number, runOf: (numLayers: number) => ProbeRun): PlanInput => {
    const few = fewerLayers(config, least);
    const run = runOf(parseModel(few).numLayers);
    return { ...made, model: few, run: { dtype, ...run, seqLen: run.numChunks * chunkTokens } };
  };
  return [
    // k and v travel, and attention is formed again: copies, merges and the loop over keys outside.
    probe(2, () => ({ policy: 'fpdt', numChunks: 2 })),
    // Everything stays, products too: keys of several chunks at once, and row tiles.
    probe(1, (numLayers) => ({
      policy: 'auto',
      numChunks: 3,
      numTokenTiles: SHORT_ROWS,
      numLossTiles: SHORT_ROWS,
      strategy: { layers: [{ layers: [0, numLayers], internals: devicePool(poolsOf(cluster)) }] },
    })),
  ];
}

/** Of the rows of a chunk, those that are measured as short. */
const SHORT_ROWS = 4;

function defaultConfig(dtype: ModelDtype = 'float32'): JsonObject {
  return {
    train_micro_batch_size_per_gpu: 1,
    bf16: { enabled: dtype === 'bfloat16' },
    optimizer: { type: 'AdamW', params: { lr: 1e-3, torch_adam: true } },
    zero_optimization: { stage: 3 },
  };
}
