/**
 * `npm run parity -- [--json] [--limit n] [--only text]`: gradients of the worker against an untouched transformers model
 * in fp64, over a pairwise-covering set of cases; then 20 optimizer steps and one case in bf16. Fails when an error is more
 * than FACTOR times what transformers' own run in the same precision has.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { FpdtError, writePlanFile } from '../../src/index.js';
import { runScript, wholeNumber } from '../options.js';
import { type ParityCase, caseName, coveringCases } from './cases.js';
import { Harness } from './harness.js';
import { type CaseOptions, planCase, referenceKey, writeTokens } from './setting.js';

/** Largest allowed error in units of transformers' own: fp32 as the design asks, bf16 has fewer digits to lose. */
const FACTOR = { float32: 4, bfloat16: 1.5 } as const;
const LOSS_TOLERANCE = 1e-5;
const NUM_CASES = 60;
const COPY_MODES = ['eager', 'lazy', 'random'] as const;

interface Outcome {
  readonly name: string;
  readonly error: number | null;
  readonly ownError: number | null;
  readonly ratio: number | null;
  readonly ok: boolean;
  readonly where?: string | undefined;
  readonly failed?: string | undefined;
}

class ParityRun {
  private readonly harness: Harness;
  private readonly folder: string;
  private readonly data: string;
  private readonly references = new Map<string, Promise<number | null>>();
  private numPlans = 0;

  constructor(harness: Harness, folder: string, data: string) {
    this.harness = harness;
    this.folder = folder;
    this.data = data;
  }

  async gradients(one: ParityCase, copyMode: string, { dtype = 'float32' }: CaseOptions = {}): Promise<Outcome> {
    const name = `${caseName(one)} ${copyMode}${dtype === 'float32' ? '' : ` ${dtype}`}`;
    const plan = await this.plan(one, { dtype });
    const key = referenceKey(one);
    const ownError = await this.ownError(key, plan, dtype);
    const dumpGrads = join(this.folder, `worker-${this.numPlans}`);
    const worldSize = one.sequenceParallelSize * one.dataParallelSize;
    const ran = await this.harness.run({
      kind: 'worker',
      plan,
      data: this.data,
      steps: 1,
      worldSize,
      dumpGrads,
      options: { copy_mode: copyMode, seed: 3 },
    });
    if (ran.failed !== undefined)
      return { name, error: null, ownError, ratio: null, ok: false, failed: `${ran.failed}\n${ran.traceback ?? ''}` };
    const { error = null, where } = await this.harness.mustRun({ kind: 'compare', left: dumpGrads, right: this.dump(key, 'float64') });
    const ratio = error === null || ownError === null ? null : error / ownError;
    return { name, error, ownError, ratio, ok: ratio !== null && ratio <= FACTOR[dtype], where };
  }

  /** Losses of 20 AdamW steps with clipping against plain PyTorch in the same precision. */
  async losses(one: ParityCase): Promise<Outcome> {
    const steps = 20;
    const plan = await this.plan(one, { numSteps: steps });
    const worldSize = one.sequenceParallelSize * one.dataParallelSize;
    const ours = await this.harness.run({ kind: 'worker', plan, data: this.data, steps, worldSize });
    const theirs = await this.harness.mustRun({ kind: 'reference', plan, data: this.data, steps, dtype: 'float32' });
    const expected = theirs.losses ?? [];
    const found = ours.losses ?? [];
    const error = found.length === steps ? Math.max(...found.map((loss, i) => Math.abs(loss / (expected[i] ?? Number.NaN) - 1))) : null;
    const name = `20 steps ${caseName(one)}`;
    return { name, error, ownError: LOSS_TOLERANCE, ratio: null, ok: error !== null && error <= LOSS_TOLERANCE, failed: ours.failed };
  }

  private async plan(one: ParityCase, options: CaseOptions): Promise<string> {
    const path = join(this.folder, `plan-${this.numPlans++}.json`);
    await writePlanFile(await planCase(one, options), path);
    return path;
  }

  private dump(key: string, dtype: string): string {
    return join(this.folder, `reference-${key}-${dtype}`);
  }

  /** transformers' own error in `dtype` against itself in fp64. */
  private ownError(key: string, plan: string, dtype: 'float32' | 'bfloat16'): Promise<number | null> {
    const name = `${key}/${dtype}`;
    const known = this.references.get(name) ?? this.runReferences(key, plan, dtype);
    this.references.set(name, known);
    return known;
  }

  private async runReferences(key: string, plan: string, dtype: string): Promise<number | null> {
    for (const precision of ['float64', dtype]) {
      await this.harness.mustRun({
        kind: 'reference',
        plan,
        data: this.data,
        steps: 1,
        dtype: precision,
        dumpGrads: this.dump(key, precision),
      });
    }
    const { error } = await this.harness.mustRun({ kind: 'compare', left: this.dump(key, dtype), right: this.dump(key, 'float64') });
    return error ?? null;
  }
}

const STEADY: ParityCase = {
  sequenceParallelSize: 2,
  zeroStage: 3,
  policy: 'fpdt',
  numChunks: 8,
  segmentLayers: 2,
  heads: 'gqa',
  tied: false,
  gradientAccumulationSteps: 2,
  dataParallelSize: 1,
  lossScale: 1,
};

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { json: { type: 'boolean', default: false }, limit: { type: 'string' }, only: { type: 'string' } },
  });
  const cases = chooseCases(values.only ?? '', values.limit);
  const say = (text: string): void => void (values.json ? process.stderr : process.stdout).write(`${text}\n`);
  const folder = await mkdtemp(join(tmpdir(), 'fpdt-parity-'));
  const harness = Harness.start();
  const outcomes: Outcome[] = [];
  const report = (outcome: Outcome): void => {
    outcomes.push(outcome);
    say(describe(outcome));
  };
  try {
    const run = new ParityRun(harness, folder, await writeTokens(folder));
    for (const [i, one] of cases.entries()) report(await run.gradients(one, COPY_MODES[i % COPY_MODES.length] ?? 'eager'));
    report(await run.losses(STEADY));
    report(await run.losses({ ...STEADY, policy: 'auto', zeroStage: 1, segmentLayers: 1, dataParallelSize: 2, tied: true }));
    report(await run.gradients(STEADY, 'eager', { dtype: 'bfloat16' }));
  } finally {
    await harness.stop();
    await rm(folder, { recursive: true, force: true });
  }
  const failed = outcomes.filter(({ ok }) => !ok);
  if (values.json) process.stdout.write(`${JSON.stringify({ kind: 'parityReport', factor: FACTOR, cases: outcomes }, null, 1)}\n`);
  say(failed.length === 0 ? `parity ok: ${outcomes.length} cases` : `parity failed: ${failed.length} of ${outcomes.length} cases`);
  process.exitCode = failed.length === 0 ? 0 : 1;
}

/** Never none: a run that checks nothing would pass. */
function chooseCases(only: string, limit: string | undefined): readonly ParityCase[] {
  const found = coveringCases(NUM_CASES).filter((one) => caseName(one).includes(only));
  if (found.length === 0) {
    const hint = `give a part of a name such as '${caseName(STEADY)}'`;
    throw new FpdtError(`--only: no case has '${only}' in its name`, { code: 'usage', hint });
  }
  return limit === undefined ? found : found.slice(0, wholeNumber('limit', limit));
}

function describe({ name, error, ownError, ratio, ok, where, failed }: Outcome): string {
  const number = (value: number | null): string => (value === null ? '-' : value.toExponential(2));
  const line = `${ok ? 'ok    ' : 'FAILED'} ${name}: ${number(error)}, own ${number(ownError)}${ratio === null ? '' : `, ratio ${ratio.toFixed(2)}`}`;
  return ok ? line : `${line} ${where ?? ''}${failed === undefined ? '' : `\n${failed}`}`;
}

await runScript(main);
