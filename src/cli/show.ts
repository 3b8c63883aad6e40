/** `fpdt show`: a plan file's summary, its step program, or one section, drawn or as op text. */
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { readPlanFile } from '../plan/file.js';
import { planSummary } from '../plan/summary.js';
import { planToJson } from '../report/planJson.js';
import { sectionView } from '../report/sectionView.js';
import type { Section } from '../schedule/op.js';
import { programToText } from '../schedule/programText.js';
import { sectionToText } from '../schedule/text.js';
import { FpdtError } from '../spec/errors.js';
import { nearestKey } from '../spec/nearestKey.js';
import { type Output, printJson } from './output.js';

interface ShowOptions {
  readonly program?: boolean;
  readonly ops?: boolean;
  readonly price?: number;
  readonly json?: boolean;
}

export async function showCommand(path: string, section: string | undefined, options: ShowOptions, output: Output): Promise<void> {
  refuseUnused(section, options);
  const plan = await readPlanFile(path);
  if (section !== undefined) showSection(plan, findSection(plan, section), options, output);
  else if (options.program === true) showProgram(plan, options, output);
  else if (options.json === true) printJson(output, planToJson(plan, options.price));
  else output.out(planSummary(plan, options.price));
}

/** An option that would change nothing is a mistake. */
function refuseUnused(section: string | undefined, { program, ops }: ShowOptions): void {
  if (section !== undefined && program === true) {
    throw new FpdtError(`--program prints the whole step, not section ${section}`, { code: 'usage', hint: 'leave one of them out' });
  }
  if (section === undefined && ops === true) {
    throw new FpdtError('--ops needs the name of a section', { code: 'usage', hint: 'fpdt show plan.json layerForward --ops' });
  }
}

function showSection(plan: ExecutionPlan, section: Section, { json, ops }: ShowOptions, output: Output): void {
  if (json === true) printJson(output, section);
  else output.out(ops === true ? sectionToText(section, plan) : sectionView(plan, section.name));
}

function showProgram(plan: ExecutionPlan, { json }: ShowOptions, output: Output): void {
  if (json === true) printJson(output, plan.programs.train);
  else output.out(programToText(plan.programs.train, plan));
}

function findSection({ sections }: ExecutionPlan, given: string): Section {
  const found = sections.find(({ name }) => name === given);
  if (found !== undefined) return found;
  const names = sections.map(({ name }) => name);
  const nearest = nearestKey(given, names);
  throw new FpdtError(`the plan has no section called '${given}'`, {
    code: 'usage',
    hint: nearest === undefined ? `sections: ${names.join(', ')}` : `did you mean '${nearest}'?`,
  });
}
