/** One shape: with each policy planned from a calibration right before and run, and calibrated once more. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { calibrateMachine, speedFactor } from '../../src/bridge/calibration.js';
import { type ExecutionPlan, launchRun, planRun } from '../../src/index.js';
import { type Comparison, compareRun } from '../../src/report/compare.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import type { ClusterSpec } from '../../src/spec/types.js';
import type { ProbeInput } from '../../src/strategy/probePlans.js';
import type { Shape } from './shapes.js';

const ROUND_POLICIES = ['auto', 'fpdt'] as const;
export type RoundPolicy = (typeof ROUND_POLICIES)[number];

export interface RoundOptions {
  readonly python: string;
  readonly calibrationSeconds: number;
  readonly numSteps: number;
}

export interface PolicyRun {
  readonly policy: RoundPolicy;
  readonly comparison: Comparison;
  /** Planned. */
  readonly outsideSeconds: number;
}

export interface Round {
  /** Speed of the machine in a calibration over that in an earlier one, on the plans that measured it: of the two that differ most. */
  readonly speedFactor: number;
  readonly runs: readonly PolicyRun[];
}

export async function runRound(shape: Shape, options: RoundOptions): Promise<Round> {
  const folder = mkdtempSync(join(tmpdir(), 'fpdt-accuracy-'));
  try {
    const data = join(folder, 'tokens.bin');
    writeFileSync(data, tokens(shape));
    const calibrated = [await calibrate(shape, options)];
    const runs: PolicyRun[] = [];
    for (const policy of ROUND_POLICIES) {
      const plan = await planShape(shape, calibrated.at(-1) as ClusterSpec, policy, options);
      const comparison = await measure(plan, data, options);
      runs.push({ policy, comparison, outsideSeconds: plan.prediction.outsideSeconds });
      calibrated.push(await calibrate(shape, options));
    }
    return { speedFactor: await largestChange(shape, calibrated), runs };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function largestChange(shape: Shape, calibrated: readonly ClusterSpec[]): Promise<number> {
  const pairs = calibrated.flatMap((before, i) => calibrated.slice(i + 1).map((after) => speedFactor(probeOf(shape), before, after)));
  return (await Promise.all(pairs)).reduce((most, one) => (Math.abs(Math.log(one)) > Math.abs(Math.log(most)) ? one : most), 1);
}

function deepspeedOf({ dtype }: Pick<Shape, 'dtype'>): JsonObject {
  return {
    train_micro_batch_size_per_gpu: 1,
    gradient_clipping: 1,
    bf16: { enabled: dtype === 'bfloat16' },
    optimizer: { type: 'AdamW', params: { lr: 1e-3, torch_adam: true } },
    zero_optimization: { stage: 3, stage3_param_persistence_threshold: 0, overlap_comm: false, contiguous_gradients: true },
  };
}

function probeOf(shape: Shape): Omit<ProbeInput, 'cluster'> {
  return { model: shape.config, chunkTokens: shape.chunkTokens, dtype: shape.dtype, deepspeed: deepspeedOf(shape) };
}

function calibrate(shape: Shape, { python, calibrationSeconds }: RoundOptions): Promise<ClusterSpec> {
  return calibrateMachine(python, { ...probeOf(shape), ranks: shape.ranks, seconds: calibrationSeconds });
}

function planShape(shape: Shape, cluster: ClusterSpec, policy: RoundPolicy, { numSteps }: RoundOptions): Promise<ExecutionPlan> {
  const { config, numChunks, chunkTokens, dtype } = shape;
  const run = { seqLen: numChunks * chunkTokens, numChunks, policy, dtype, numSteps, seed: 0 };
  return planRun({ model: config, cluster: { ...cluster }, run, deepspeed: deepspeedOf(shape) });
}

async function measure(plan: ExecutionPlan, data: string, { python }: RoundOptions): Promise<Comparison> {
  const run = await launchRun(plan, { data, python });
  for await (const event of run) if (event.type === 'log') process.stderr.write(`rank ${event.rank ?? '-'}: ${event.line}\n`);
  return compareRun(plan, await run.result);
}

/** Of two sequences, every token of a small vocabulary, in an order that is no pattern. */
function tokens({ numChunks, chunkTokens }: Shape): Buffer {
  const ids = new Int32Array(2 * (numChunks * chunkTokens + 1));
  let state = 1;
  for (let i = 0; i < ids.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    ids[i] = (state >>> 16) % 512;
  }
  return Buffer.from(ids.buffer);
}
