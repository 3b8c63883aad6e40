/**
 * `node --import tsx bench/demoStep.ts CHECKOUT [--pairs 7] [--steps 6]`: the demo's step time here against an older checkout's, in turn,
 * so that both meet the same noise. Prints one JSON object: the ratio of each pair (here / there), and their median.
 * The checkout needs its own `node_modules` and `dist`; FPDT_PYTHON is used by both.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { parseOptions, runScript, wholeNumber } from '../scripts/options.js';
import { resolvePython } from '../src/bridge/python.js';
import { median } from '../src/report/compare.js';
import { FpdtError } from '../src/index.js';

const HERE = fileURLToPath(new URL('..', import.meta.url));

/** Median seconds of the steps after the first, as the demo prints them. */
async function stepSeconds(checkout: string, steps: number): Promise<number> {
  const args = ['--import', 'tsx', 'scripts/demo.ts', '--steps', String(steps), '--ignore-step-time'];
  const env = { FPDT_PYTHON: resolvePython(), OMP_NUM_THREADS: '1', NO_COLOR: '1' };
  const { stdout } = await execa(process.execPath, args, { cwd: checkout, env });
  const lines = [...stdout.matchAll(/^step +(\d+)\/\d+ .*? ([\d.]+) (ms|s) \(plan/gm)];
  const seconds = lines.filter(([, step]) => Number(step) > 1).map(([, , value, unit]) => Number(value) * (unit === 'ms' ? 1e-3 : 1));
  if (seconds.length !== steps - 1) throw new Error(`the demo in ${checkout} printed ${seconds.length + 1} of ${steps} steps`);
  return median(seconds);
}

async function main(): Promise<void> {
  const { values, positionals } = parseOptions({
    options: { pairs: { type: 'string', default: '7' }, steps: { type: 'string', default: '6' } },
    allowPositionals: true,
  });
  const [checkout] = positionals;
  if (checkout === undefined || positionals.length > 1 || !existsSync(join(checkout, 'scripts/demo.ts'))) {
    throw new FpdtError(`expected the folder of an older checkout, found ${positionals.length === 0 ? 'nothing' : positionals.join(' ')}`, {
      code: 'usage',
      hint: 'node --import tsx bench/demoStep.ts CHECKOUT',
    });
  }
  const [steps, numPairs] = [wholeNumber('steps', values.steps, { least: 3 }), wholeNumber('pairs', values.pairs)];
  const pairs: { readonly here: number; readonly there: number }[] = [];
  for (let i = 0; i < numPairs; i++) {
    const [here, there] = [await stepSeconds(HERE, steps), await stepSeconds(checkout, steps)];
    pairs.push({ here, there });
    process.stderr.write(`pair ${i + 1}: ${here.toFixed(3)} s here, ${there.toFixed(3)} s there, ratio ${(here / there).toFixed(3)}\n`);
  }
  const medianRatio = median(pairs.map(({ here, there }) => here / there));
  process.stdout.write(`${JSON.stringify({ kind: 'demoStepBenchmark', medianRatio, pairs }, null, 1)}\n`);
}

await runScript(main);
