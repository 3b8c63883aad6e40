/** The mutation run over the CUDA runtime: breaks its source, and runs every mutant on a made-up device; see fpdt/testing/fake_cuda. */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import { PYTHON_FOLDER, resolvePython } from '../../src/bridge/python.js';
import { type ExecutionPlan, writePlanFile } from '../../src/index.js';
import type { Verdict } from './candidate.js';

/** `perOperator`: how many mutants of each kind of damage; undefined for all of them. */
export async function mutateDevice(
  plans: readonly ExecutionPlan[],
  folder: string,
  perOperator: number | undefined,
  say: (verdict: Verdict) => void,
): Promise<readonly Verdict[]> {
  const paths = plans.map((_, i) => join(folder, `device-${i}.json`));
  for (const [i, plan] of plans.entries()) await writePlanFile(plan, paths[i] as string);
  const sample = perOperator === undefined ? [] : ['--sample', `${perOperator}`];
  const env = { PYTHONPATH: PYTHON_FOLDER, OMP_NUM_THREADS: '1' };
  const child = execa(resolvePython(), ['-m', 'fpdt.testing.fake_cuda.mutate', ...sample, ...paths], { env, buffer: { stdout: false } });
  const verdicts: Verdict[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const verdict = JSON.parse(line) as Verdict;
    verdicts.push(verdict);
    say(verdict);
  }
  await child;
  return verdicts;
}
