/** The planner: specs in, a verified execution plan out. Pure except that paths among the inputs are read. */
import { type SpecInput, parseSpecs } from '../catalog/specs.js';
import { explainMisfit } from '../memory/misfit.js';
import { sealPlan } from '../plan/encode.js';
import { type ExecutionPlan, PLAN_VERSION } from '../plan/executionPlan.js';
import { predictRun } from '../predict/predict.js';
import { FpdtError } from '../spec/errors.js';
import { withChunks } from '../spec/sizes.js';
import type { Strategy } from '../spec/strategy.js';
import { verifySchedule } from '../verify/verify.js';
import { type Built, buildStrategy } from './evaluate.js';
import { estimator } from './evaluator.js';
import { refuseTooManyOps } from './planSize.js';
import { refusePositionsPastTable } from './positions.js';
import { type BuildInput, type Setting, settingOf } from './setting.js';
import { findStrategy } from './findStrategy.js';
import { solveStrategy } from './solve.js';

export type PlanInput = SpecInput;

/**
 * Plans one run. Needs neither Python nor a GPU.
 *
 * Throws an FpdtError that says what to change: `unknown-key`, `wrong-type`, `does-not-fit` and others; see its `code` and `hint`.
 */
export async function planRun(input: PlanInput): Promise<ExecutionPlan> {
  const { deepspeed, ...specs } = parseSpecs(input);
  const asked = { ...specs, deepspeed: deepspeed.config };
  return planFound(asked, solveStrategy(asked, estimator()));
}

/** The plan of the fastest strategy for these inputs, of which one is known to fit. */
export function planFitting(asked: BuildInput, known: Strategy): ExecutionPlan {
  const found = findStrategy(asked, estimator());
  return planFound(asked, found.memory.fits ? found.strategy : known);
}

/** The plan of a strategy that was found for these inputs. */
function planFound(asked: BuildInput, strategy: Strategy): ExecutionPlan {
  return planStrategy(settingOf({ ...asked, run: withChunks(asked.run, strategy.numChunks) }), strategy);
}

/** The plan of one strategy, whatever a solver would choose. */
export function planStrategy(setting: Setting, strategy: Strategy): ExecutionPlan {
  refusePositionsPastTable(setting.model, setting.run);
  refuseTooManyOps(setting, strategy);
  const built = buildStrategy(setting, strategy);
  if (!built.memory.fits) throw explainMisfit(built.memory);
  refuseIllegal(setting, built);
  const { model, cluster, run, deepspeed, parameters, layout, kernels } = setting;
  const body = { model, cluster, run, deepspeed, strategy, parameters, layout, kernels, ...built.schedule };
  return sealPlan({
    kind: 'executionPlan',
    version: PLAN_VERSION,
    ...body,
    memory: built.memory,
    prediction: predictRun(body),
  });
}

function refuseIllegal({ model, parameters }: Setting, { schedule }: Built): void {
  const violations = verifySchedule({
    ...schedule,
    numLayers: model.numLayers,
    windows: model.windows,
    parameters,
    classOf: model.code.classOf,
    tied: model.tieWordEmbeddings,
  });
  const [first] = violations;
  if (first === undefined) return;
  throw new FpdtError(`the schedule is not legal: ${first.section} ${first.text}: ${first.problem}`, {
    code: 'illegal-schedule',
    hint: 'this is a bug of the planner; report the inputs',
    details: { violations: violations.slice(0, 20) },
  });
}
