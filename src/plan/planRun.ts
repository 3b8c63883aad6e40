/** The planner: specs in, a verified execution plan out. Pure except that paths among the inputs are read. */
import { type SpecInput, opBytes, opFlops, parameterTable, parseSpecs } from '../catalog/index.js';
import { type Evaluation, solveStrategy } from '../chunk/solve.js';
import type { Strategy } from '../chunk/strategy.js';
import type { MemoryLedger } from '../memory/ledger.js';
import { explainMisfit } from '../memory/misfit.js';
import type { Buffer } from '../schedule/buffer.js';
import type { OpWork } from '../schedule/cost.js';
import { predictRun } from '../schedule/predict.js';
import { verifySchedule } from '../schedule/verify.js';
import { FpdtError } from '../spec/errors.js';
import { withChunks } from '../spec/sizes.js';
import type { ClusterSpec, DeepSpeedConfig, ModelSpec, ParameterTable, RunSpec } from '../spec/types.js';
import { sealPlan } from './encode.js';
import { type Built, buildStrategy, estimateMemory } from './evaluate.js';
import { type ExecutionPlan, type HeadMap, PLAN_VERSION } from './executionPlan.js';

export type PlanInput = SpecInput;

interface Specs {
  readonly model: ModelSpec;
  readonly cluster: ClusterSpec;
  readonly run: RunSpec;
  readonly deepspeed: DeepSpeedConfig;
  readonly parameters: ParameterTable;
}

/**
 * Plans one run. Needs neither Python nor a GPU.
 *
 * Throws an FpdtError that says what to change: `unknown-key`, `wrong-type`, `does-not-fit` and others; see its `code` and `hint`.
 */
export async function planRun(input: PlanInput): Promise<ExecutionPlan> {
  const asked = readSpecs(input);
  const strategy = solveStrategy(
    asked,
    (candidate, request): Evaluation => evaluation(estimateMemory({ ...asked, ...request }, candidate)),
  );
  const specs = { ...asked, run: withChunks(asked.run, strategy.numChunks) };
  const built = buildStrategy(specs, strategy);
  if (!built.memory.fits) throw explainMisfit(built.memory);
  refuseIllegal(specs, strategy, built);
  const { schedule } = built;
  const { buffers, arenas } = built.layout;
  const prediction = predictRun({ ...specs, strategy, buffers, schedule, work: workOf(specs, buffers) });
  const headMap = contiguousHeads(specs.model, specs.run.sequenceParallelSize);
  const { memory } = built;
  return sealPlan({
    kind: 'executionPlan',
    version: PLAN_VERSION,
    ...specs,
    strategy,
    headMap,
    arenas,
    buffers,
    schedule,
    memory,
    prediction,
  });
}

function readSpecs(input: PlanInput): Specs {
  const { deepspeed, ...specs } = parseSpecs(input);
  return { ...specs, deepspeed: deepspeed.config, parameters: parameterTable(specs.model) };
}

/** The catalog's work of an op, bound to this run. */
function workOf({ model, run, parameters }: Specs, buffers: readonly Buffer[]): OpWork {
  return {
    flops: (op) => {
      const { matmulFlops, attentionForwardFlops, attentionBackwardFlops } = opFlops(op, model, run);
      return matmulFlops + attentionForwardFlops + attentionBackwardFlops;
    },
    bytes: (op) => opBytes(op, model, run, parameters, buffers),
  };
}

function evaluation(ledger: MemoryLedger): Evaluation {
  return { fits: ledger.fits, hbmBytes: ledger.hbm.peakBytes, hostBytes: ledger.host.peakBytes, ledger };
}

function refuseIllegal({ model }: Specs, { segmentLayers }: Strategy, { schedule, layout }: Built): void {
  const violations = verifySchedule({ schedule, ...layout, segmentLayers, numSegments: model.numLayers / segmentLayers });
  const [first] = violations;
  if (first === undefined) return;
  throw new FpdtError(`the schedule is not legal: ${first.section} op ${first.text}: ${first.problem}`, {
    code: 'illegal-schedule',
    hint: 'this is a bug of the planner; report the inputs',
    details: { violations: violations.slice(0, 20) },
  });
}

/** Rank r owns heads [r H/P, (r+1) H/P): query heads stay with the kv heads they share. */
function contiguousHeads({ numHeads, numKvHeads }: ModelSpec, ranks: number): HeadMap {
  const split = (heads: number): number[][] =>
    Array.from({ length: ranks }, (_, rank) => Array.from({ length: heads / ranks }, (_head, i) => (rank * heads) / ranks + i));
  return { query: split(numHeads), keyValue: split(numKvHeads) };
}
