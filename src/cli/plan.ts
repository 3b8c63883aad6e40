/** `fpdt plan`: options to specs, specs to a plan, its summary to the terminal and the plan to a file; or all policies side by side. */
import { planRun } from '../machine/planRun.js';
import { writePlanFile } from '../plan/file.js';
import { planSummary } from '../plan/summary.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { choiceToText } from '../report/choiceText.js';
import { planToJson } from '../report/planJson.js';
import { policyComparisonToText } from '../report/policyTable.js';
import { type CheckedRequirement, checkRequirements, parseRequirements, requirementsToText } from '../report/requirements.js';
import { FpdtError } from '../spec/errors.js';
import { isPlanOnly } from '../spec/releasedPrograms.js';
import { comparePolicies } from '../strategy/comparePolicies.js';
import { type ChoiceExplanation, explainChoice } from '../strategy/explain/choice.js';
import { withPrice } from '../strategy/pricedChanges.js';
import { UNMET } from './exitCodes.js';
import { type Output, printJson } from './output.js';
import { toPlanInput } from './planInput.js';
import { releasedCommand, type ReleasedCommandOptions } from './released.js';

interface PlanOptions extends ReleasedCommandOptions {
  readonly compare?: boolean;
  readonly explain?: boolean;
}

/** Returns the exit code: 0, or UNMET where the plan does not keep to a requirement. */
export async function planCommand(options: PlanOptions, output: Output): Promise<number> {
  if (options.compare === true) return compareCommand(options, output);
  if (isPlanOnly(options.policy)) return releasedOnly(options, output);
  const { output: path, price, json } = options;
  const requirements = options.require === undefined ? [] : parseRequirements(options.require);
  const plan = await planned(options);
  const checked = checkRequirements(plan, requirements, price);
  if (path !== undefined) await writePlanFile(plan, path);
  const choice = options.explain === true ? { choice: explainChoice(plan) } : {};
  const requirementsMet = checked.length === 0 ? {} : { requirements: checked };
  if (json === true) printJson(output, { ...planToJson(plan, price), ...choice, ...requirementsMet });
  else output.out([planSummary(plan, price), ...choiceLines(choice), ...requirementLines(checked)].join('\n'));
  if (path !== undefined) output.err(`wrote ${path}`);
  return checked.every(({ met }) => met) ? 0 : UNMET;
}

/** Changes that would fit have prices in money where a GPU-hour has one. */
async function planned(options: PlanOptions): Promise<ExecutionPlan> {
  try {
    return await planRun(toPlanInput(options));
  } catch (error) {
    throw options.price === undefined ? error : withPrice(error, options.price);
  }
}

async function releasedOnly(options: PlanOptions, output: Output): Promise<number> {
  if (options.explain === undefined) return releasedCommand(options, output);
  throw new FpdtError(`--explain is about what a solver chose; policy ${options.policy} leaves it nothing to choose`, {
    code: 'usage',
    hint: 'leave one of them out',
  });
}

function choiceLines({ choice }: { readonly choice?: ChoiceExplanation }): readonly string[] {
  return choice === undefined ? [] : ['', choiceToText(choice)];
}

function requirementLines(checked: readonly CheckedRequirement[]): readonly string[] {
  return checked.length === 0 ? [] : ['', requirementsToText(checked)];
}

async function compareCommand(options: PlanOptions, output: Output): Promise<number> {
  for (const option of ['output', 'require', 'policy', 'released', 'explain'] as const) {
    if (options[option] === undefined) continue;
    throw new FpdtError(`--compare plans with every policy; --${option} is for one plan`, { code: 'usage', hint: 'leave one of them out' });
  }
  const comparison = await comparePolicies(toPlanInput(options), options.price);
  if (options.json === true) printJson(output, comparison);
  else output.out(policyComparisonToText(comparison));
  return 0;
}
