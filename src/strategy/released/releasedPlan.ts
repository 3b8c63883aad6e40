/** The plan of a released program: time, memory and whether it fits. There is no schedule behind it, and nothing that could run. */
import type { SpecInput } from '../../catalog/specs.js';
import { checkPrice, type PlanCost, planCost } from '../../plan/cost.js';
import type { MemoryLedger } from '../../memory/ledger.js';
import { mfuOf, tokensPerStep } from '../../predict/mfu.js';
import type { Mfu } from '../../predict/prediction.js';
import type { PlanOnlyPolicy, ReleasedOptions } from '../../spec/releasedPrograms.js';
import type { ClusterSpec, DeepSpeedConfig, RunSpec } from '../../spec/types.js';
import type { TimeTerm } from './costs.js';
import { refusePositionsPastTable } from '../positions.js';
import { PROGRAMS } from './programs.js';
import { type ReleasedSetting, releasedSetting } from './setting.js';

export interface ReleasedPrediction {
  readonly stepSeconds: number;
  readonly tokensPerSecond: number;
  /** They sum to the step, largest first. */
  readonly terms: readonly TimeTerm[];
  readonly mfu: Mfu;
}

export interface ReleasedPlan {
  readonly kind: 'releasedPlan';
  readonly policy: PlanOnlyPolicy;
  /** No schedule: it cannot be run or written to a plan file. */
  readonly planOnly: true;
  /** As resolved, with the program's own where none was given. */
  readonly options: ReleasedOptions;
  readonly family: string;
  readonly numModelParameters: number;
  readonly cluster: ClusterSpec;
  readonly run: Omit<RunSpec, 'policy'>;
  readonly deepspeed: DeepSpeedConfig;
  readonly kernel: string;
  readonly fits: boolean;
  readonly memory: MemoryLedger;
  readonly prediction: ReleasedPrediction;
  readonly cost: PlanCost;
  readonly remarks: readonly string[];
}

/**
 * Plans a run by a released program; `run.policy` names it, `run.released` switches parts of it. A plan that does not fit is returned
 * too, with `fits` false. Throws an FpdtError for what the program does not have.
 */
export function planReleased(input: SpecInput, usdPerGpuHour?: number): ReleasedPlan {
  if (usdPerGpuHour !== undefined) checkPrice(usdPerGpuHour);
  return planSetting(settingOf(input), usdPerGpuHour);
}

export function settingOf(input: SpecInput): ReleasedSetting {
  const facts = Object.fromEntries(Object.entries(PROGRAMS).map(([name, program]) => [name, program.facts]));
  return releasedSetting(input, facts as Parameters<typeof releasedSetting>[1]);
}

export function planSetting(setting: ReleasedSetting, usdPerGpuHour?: number): ReleasedPlan {
  const { policy, options, model, parameters, cluster, deepspeed, kernel } = setting;
  refusePositionsPastTable(model, setting.run);
  const { policy: _, ...run } = setting.run;
  const program = PROGRAMS[policy];
  const memory = program.memory(setting);
  const prediction = predictionOf(setting);
  return {
    kind: 'releasedPlan',
    policy,
    planOnly: true,
    options,
    family: model.family,
    numModelParameters: parameters.numModelParameters,
    cluster,
    run,
    deepspeed,
    kernel,
    fits: memory.fits,
    memory,
    prediction,
    cost: planCost({ cluster, prediction }, usdPerGpuHour),
    remarks: program.remarks(setting),
  };
}

function predictionOf(setting: ReleasedSetting): ReleasedPrediction {
  const program = PROGRAMS[setting.policy];
  const terms = program.step(setting).toSorted((a, b) => b.seconds - a.seconds);
  const stepSeconds = terms.reduce((sum, { seconds }) => sum + seconds, 0);
  const { attentionFlops, productFlops } = program.micro(setting);
  const times = setting.run.gradientAccumulationSteps;
  return {
    stepSeconds,
    tokensPerSecond: tokensPerStep(setting) / stepSeconds,
    terms,
    mfu: mfuOf(setting, stepSeconds, { attention: times * attentionFlops, other: times * productFlops }),
  };
}
