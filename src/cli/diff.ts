/** `fpdt diff`: what differs between two plan files. */
import { realpathSync } from 'node:fs';
import { readPlanFile } from '../plan/file.js';
import { diffPlans } from '../report/planDiff.js';
import { planDiffToText } from '../report/planDiffText.js';
import { FpdtError } from '../spec/errors.js';
import { type Output, printJson } from './output.js';

export async function diffCommand(a: string, b: string, { json }: { readonly json?: boolean }, output: Output): Promise<void> {
  const [before, after] = [await readPlanFile(a), await readPlanFile(b)];
  if (realpathSync(a) === realpathSync(b)) {
    throw new FpdtError(`${a} and ${b} are one file`, { code: 'usage', hint: 'give two plan files' });
  }
  const diff = diffPlans(before, after);
  if (json === true) printJson(output, diff);
  else output.out(planDiffToText(diff, a, b));
}
