/** `fpdt export`: the model of a plan file as a Hugging Face folder. */
import { exportModel } from '../bridge/exportModel.js';
import { readPlanFile } from '../plan/file.js';
import { formatBytes } from '../spec/sizes.js';
import { modelFolder } from './modelPath.js';
import { type Output, printJson } from './output.js';

interface Options {
  readonly output: string;
  readonly weights?: string;
  readonly python?: string;
  readonly json?: boolean;
}

export async function exportCommand(plan: string, options: Readonly<Record<string, unknown>>, output: Output): Promise<void> {
  const { output: folder, weights, python, json } = options as unknown as Options;
  // What is no plan file is told here, in its own words.
  await readPlanFile(plan);
  const found = await exportModel({ plan, output: folder, weights: weights === undefined ? undefined : modelFolder(weights), python });
  if (json === true) printJson(output, { kind: 'export', folder, ...found });
  else output.out(`wrote ${folder}: ${found.numWeights} weights, ${formatBytes(found.bytes)}`);
}
