/**
 * `tsx bench/gpu/cluster.ts result.jsonl STAGING cluster.json`: the cluster file of what the step `calibrate` measured, as `fpdt calibrate`
 * writes it where Node is beside the GPU. STAGING is the folder that the run was given: it has the shapes that were measured.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { calibrationJob, measuredCluster, readNumbers } from '../../src/bridge/calibration.js';
import type { CalibrationInput } from '../../src/bridge/calibrationProbes.js';
import { calibrationText, shapesFile, shapesPath } from '../../src/bridge/calibrationFile.js';
import { FpdtError } from '../../src/index.js';
import { parseOptions, runScript } from '../../scripts/options.js';
import { readJsonFile, readTextFile } from '../../src/spec/jsonFile.js';
import { parseJsonText } from '../../src/spec/jsonText.js';

interface Line {
  readonly kind: string;
  readonly numbers?: unknown;
  readonly hardware?: string;
}

await runScript(async () => {
  const { positionals } = parseOptions({ options: {}, allowPositionals: true });
  const [result, staging, output] = positionals;
  if (result === undefined || staging === undefined || output === undefined || positionals.length > 3) {
    throw new FpdtError(`expected three paths, found ${positionals.length}`, {
      code: 'usage',
      hint: 'give result.jsonl, the staging folder of that run, and the cluster file to write',
    });
  }
  const lines = linesOf(result);
  const measured = lastOf(lines, 'calibration');
  const { input } = readJsonFile(join(staging, 'calibration.json'), 'calibration') as { readonly input: CalibrationInput };
  const folder = mkdtempSync(join(tmpdir(), 'fpdt-cluster-'));
  try {
    const { base, plans } = await calibrationJob(input, folder);
    const cluster = measuredCluster(input, base, plans, readNumbers(measured.numbers), machineOf(lines));
    writeFileSync(shapesPath(output), `${JSON.stringify(shapesFile(input), null, 2)}\n`);
    writeFileSync(output, `${JSON.stringify(cluster, null, 2)}\n`);
    console.log(calibrationText(cluster));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

function linesOf(path: string): readonly Line[] {
  const texts = readTextFile(path, 'result').split('\n');
  return texts.flatMap((text, i) => (text === '' ? [] : [parseJsonText(text, `line ${i + 1} of ${path}`) as Line]));
}

function lastOf(lines: readonly Line[], kind: string): Line {
  const found = lines.findLast((line) => line.kind === kind);
  if (found !== undefined) return found;
  throw new FpdtError(`the result has no line of kind ${kind}`, {
    code: 'no-result',
    hint: 'run bench/gpu/run.sh; --only environment,calibrate is enough',
  });
}

function machineOf(lines: readonly Line[]): string {
  return lines.findLast((line) => line.kind === 'environment')?.hardware ?? 'an unknown GPU';
}
