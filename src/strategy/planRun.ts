/** The planner: specs in, a verified execution plan out. Pure except that paths among the inputs are read. */
import { type SpecInput, parseSpecs } from '../catalog/specs.js';
import { explainMisfit } from '../memory/misfit.js';
import { collectiveTimeoutSeconds } from '../plan/collectiveTimeout.js';
import { sealPlan } from '../plan/encode.js';
import { type ExecutionPlan, PLAN_VERSION, type UnsealedPlan } from '../plan/executionPlan.js';
import { predictRun } from '../predict/predict.js';
import { FpdtError } from '../spec/errors.js';
import { withChunks } from '../spec/sizes.js';
import type { Strategy } from '../spec/strategy.js';
import { NO_REPLAYS, type Replays } from '../verify/replayColumns.js';
import { type VerifyInput, type Violation, verifySchedule, verifyScheduleOn } from '../verify/verify.js';
import { type Built, buildStrategy } from './evaluate.js';
import { estimator } from './evaluator.js';
import { refuseTooManyOps } from './planSize.js';
import { refusePositionsPastTable } from './positions.js';
import { type BuildInput, type Setting, settingOf } from './setting.js';
import { findStrategy } from './findStrategy.js';
import { solving } from './solve.js';
import { finishUnlessAborted } from './steps.js';

export type PlanInput = SpecInput;

/** What planning may make use of, and what ends it. No plan depends on it. */
export interface PlanTools {
  readonly replays: Replays;
  readonly signal?: AbortSignal;
}

/** Plans one run, as planRun of src/machine does with all that there is. */
export function planRun(input: PlanInput): Promise<ExecutionPlan> {
  return planRunWith({ replays: NO_REPLAYS }, input);
}

export async function planRunWith({ replays, signal }: PlanTools, input: PlanInput): Promise<ExecutionPlan> {
  const { deepspeed, ...specs } = parseSpecs(input);
  const asked = { ...specs, deepspeed: deepspeed.config };
  signal?.throwIfAborted();
  const draft = draftOf(asked, await finishUnlessAborted(solving(asked, estimator()), signal));
  signal?.throwIfAborted();
  const verified = verifyScheduleOn(replays, verifyInputOf(draft), signal);
  // Predicted while calls are replayed elsewhere.
  const [found, unsealed] = await Promise.all([verified, Promise.resolve().then(() => predicted(draft))]);
  signal?.throwIfAborted();
  refuseIllegal(found);
  return sealPlan(unsealed);
}

/** The plan of the fastest strategy for these inputs, of which one is known to fit. */
export function planFitting(asked: BuildInput, known: Strategy): ExecutionPlan {
  const found = findStrategy(asked, estimator());
  const draft = draftOf(asked, found.memory.fits ? found.strategy : known);
  refuseIllegal(verifySchedule(verifyInputOf(draft)));
  return sealPlan(predicted(draft));
}

/** The schedule of a strategy that was found for these inputs. */
interface Draft {
  readonly setting: Setting;
  readonly strategy: Strategy;
  readonly built: Built;
}

function draftOf(asked: BuildInput, strategy: Strategy): Draft {
  const setting = settingOf({ ...asked, run: withChunks(asked.run, strategy.numChunks) });
  refusePositionsPastTable(setting.model, setting.run);
  refuseTooManyOps(setting, strategy);
  const built = buildStrategy(setting, strategy);
  if (!built.memory.fits) throw explainMisfit(built.memory);
  return { setting, strategy, built };
}

function predicted({ setting, strategy, built }: Draft): UnsealedPlan {
  const { model, cluster, run, deepspeed, parameters, layout, kernels } = setting;
  const body = { model, cluster, run, deepspeed, strategy, parameters, layout, kernels, ...built.schedule };
  const prediction = predictRun(body);
  const limits = { collectiveTimeoutSeconds: collectiveTimeoutSeconds(prediction) };
  return { kind: 'executionPlan', version: PLAN_VERSION, ...body, ...limits, memory: built.memory, prediction };
}

function verifyInputOf({ setting: { model, run, parameters }, built: { schedule } }: Draft): VerifyInput {
  return {
    ...schedule,
    run,
    numLayers: model.numLayers,
    windows: model.windows,
    parameters,
    classOf: model.code.classOf,
    tied: model.tieWordEmbeddings,
  };
}

function refuseIllegal(violations: readonly Violation[]): void {
  const [first] = violations;
  if (first === undefined) return;
  throw new FpdtError(`the schedule is not legal: ${first.section} ${first.text}: ${first.problem}`, {
    code: 'illegal-schedule',
    hint: 'this is a bug of the planner; report the inputs',
    details: { violations: violations.slice(0, 20) },
  });
}
