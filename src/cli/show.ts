/** `fpdt show`: a plan file's summary, or one section, drawn or as op text. */
import { readPlanFile } from '../plan/file.js';
import { planSummary } from '../plan/summary.js';
import { planToJson } from '../report/planJson.js';
import { sectionView } from '../report/sectionView.js';
import { SECTIONS, type SectionName } from '../schedule/op.js';
import { sectionToText } from '../schedule/text.js';
import { FpdtError } from '../spec/errors.js';
import { nearestKey } from '../spec/nearestKey.js';
import { type Output, printJson } from './output.js';

export async function showCommand(
  path: string,
  section: string | undefined,
  options: Readonly<Record<string, unknown>>,
  output: Output,
): Promise<void> {
  const name = section === undefined ? undefined : toSectionName(section);
  const plan = await readPlanFile(path);
  const asJson = options['json'] === true;
  if (name === undefined) {
    if (asJson) printJson(output, planToJson(plan));
    else output.out(planSummary(plan));
  } else if (asJson) printJson(output, plan.schedule[name]);
  else if (options['ops'] === true) output.out(sectionToText(plan.schedule[name], plan.buffers));
  else output.out(sectionView(plan, name));
}

function toSectionName(given: string): SectionName {
  const name = SECTIONS.find((section) => section === given);
  if (name !== undefined) return name;
  const nearest = nearestKey(given, SECTIONS);
  throw new FpdtError(`no section is called '${given}'`, {
    code: 'usage',
    hint: nearest === undefined ? `sections: ${SECTIONS.join(', ')}` : `did you mean '${nearest}'?`,
  });
}
