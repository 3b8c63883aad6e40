/** `fpdt plan` and `fpdt max-seq` with a plan-only policy. */
import { maxReleasedToText, releasedToText } from '../report/releasedText.js';
import { isPlanOnly, planOnlyError } from '../spec/releasedPrograms.js';
import { maxReleasedSeqLen } from '../strategy/released/limits.js';
import { planReleased } from '../strategy/released/releasedPlan.js';
import { type Output, printJson } from './output.js';
import { type Options, toPlanInput } from './planInput.js';

export interface ReleasedCommandOptions extends Options {
  readonly policy?: string;
  readonly output?: string;
  readonly require?: string;
  readonly price?: number;
  readonly json?: boolean;
}

/** Returns the exit code: 0, or 1 for a plan that does not fit, which is printed all the same. */
export function releasedCommand(options: ReleasedCommandOptions, output: Output): number {
  const { policy, price, json } = options;
  for (const option of ['output', 'require'] as const) {
    if (isPlanOnly(policy) && options[option] !== undefined) throw planOnlyError(policy, `--${option}`);
  }
  const plan = planReleased(toPlanInput(options), price);
  if (json === true) printJson(output, plan);
  else output.out(releasedToText(plan, price));
  return plan.fits ? 0 : 1;
}

export function maxReleasedCommand(options: ReleasedCommandOptions, output: Output): void {
  const { price, json } = options;
  const longest = maxReleasedSeqLen(toPlanInput(options), price);
  if (json === true) printJson(output, longest);
  else output.out(maxReleasedToText(longest, price));
}
