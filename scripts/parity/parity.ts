/**
 * `npm run parity -- [--json] [--limit n] [--only text] [--random n] [--seed n] [--device threads]`: gradients of the worker against an untouched
 * transformers model in fp64: every pair of choices that a strategy can be forced to, head layouts, what the policies choose, and
 * `--random` mixtures drawn from a seed that is printed; then, without `--only`, 20 optimizer steps and one case in bf16 and in fp16. Fails when an error is more
 * than FACTOR times what transformers' own run in the same precision has. With `--device threads` every run has its copies on the native
 * engine's threads, which sleep now and then; else the CPU's own orders take turns.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mulberry32 } from '../../src/address/layout.js';
import { type ExecutionPlan, FpdtError, writePlanFile } from '../../src/index.js';
import type { ModelDtype } from '../../src/spec/dtype.js';
import { parseOptions, runScript, wholeNumber } from '../options.js';
import { FPDT_CASE, type ParityCase, caseName, coveringCases, randomCase } from './cases.js';
import { familyPlans, trainingPlans } from './families.js';
import { copiedBytes } from './copied.js';
import { Harness } from './harness.js';
import { type CaseOptions, type NamedPlan, namedPlans, plainPlans, planCase, referenceKey, writeTokens } from './setting.js';

/** Largest allowed error in units of transformers' own: fp32 as the design asks, bf16 and fp16 have fewer digits to lose. */
const FACTOR = { float32: 4, bfloat16: 1.5, float16: 1.5 } as const satisfies Record<ModelDtype, number>;
/** See python/fpdt/testing/faults.py. */
const FP16_ON_CPU = { FPDT_FAULT: 'fp16' };
const LOSS_TOLERANCE = 1e-5;
const NUM_CASES = 60;
const NUM_RANDOM = 12;
/** Of the documents in the sequences of plans for packing. */
const DOCUMENTS_SEED = 11;
const COPY_MODES = ['eager', 'lazy', 'random'] as const;
const DEVICES: Readonly<Record<string, readonly string[]>> = { cpu: COPY_MODES, threads: ['threads'] };

type Documents = { readonly documents?: number };

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
  private readonly copyModes: readonly string[];
  private numPlans = 0;

  constructor(harness: Harness, folder: string, data: string, copyModes: readonly string[]) {
    this.copyModes = copyModes;
    this.harness = harness;
    this.folder = folder;
    this.data = data;
  }

  /** `mode`: place among the device's copy modes, around and around. */
  async gradients({ name: base, key, plan: make, options = {} }: NamedPlan, mode: number): Promise<Outcome> {
    const copyMode = this.copyModes[mode % this.copyModes.length] ?? 'eager';
    const made = await make();
    const { dtype } = made.run;
    const name = `${base} ${copyMode}${dtype === 'float32' ? '' : ` ${dtype}`}`;
    const plan = await this.write(made);
    const documents = made.run.packing === true ? { documents: DOCUMENTS_SEED } : {};
    const ownError = await this.ownError(key, plan, dtype, documents);
    const dumpGrads = join(this.folder, `worker-${this.numPlans}`);
    const ran = await this.harness.run({
      kind: 'worker',
      plan,
      data: this.data,
      steps: 1,
      worldSize: made.cluster.numRanks,
      dumpGrads,
      ...documents,
      ...(dtype === 'float16' ? { environment: FP16_ON_CPU } : {}),
      options: { copy_mode: copyMode, seed: 3, disk_folder: this.folder, ...options },
    });
    if (ran.failed !== undefined)
      return { name, error: null, ownError, ratio: null, ok: false, failed: `${ran.failed}\n${ran.traceback ?? ''}` };
    const copied = ran.steps?.[0]?.copied_bytes ?? {};
    const expected = copiedBytes(made, ran.documents ?? []);
    const other = Object.entries(expected).find(([stream, bytes]) => copied[stream] !== bytes);
    if (other !== undefined) {
      const failed = `${copied[other[0]]} bytes copied on ${other[0]}, planned ${other[1]}`;
      return { name, error: null, ownError, ratio: null, ok: false, failed };
    }
    const right = this.dump(key, dtype, 'float64');
    const { error = null, where } = await this.harness.mustRun({ kind: 'compare', left: dumpGrads, right });
    const ratio = error === null || ownError === null ? null : error / ownError;
    return { name, error, ownError, ratio, ok: ratio !== null && ratio <= FACTOR[dtype], where };
  }

  /** Losses of 20 AdamW steps with clipping against plain PyTorch in the same precision. */
  async losses(one: ParityCase): Promise<Outcome> {
    const steps = 20;
    const plan = await this.write(await planCase(one, { numSteps: steps }));
    const worldSize = one.sequenceParallelSize * one.dataParallelSize;
    const options = { disk_folder: this.folder, copy_mode: this.copyModes[0] };
    const ours = await this.harness.run({ kind: 'worker', plan, data: this.data, steps, worldSize, options });
    const theirs = await this.harness.mustRun({ kind: 'reference', plan, data: this.data, steps, dtype: 'float32' });
    const expected = theirs.losses ?? [];
    const found = ours.losses ?? [];
    const error = found.length === steps ? Math.max(...found.map((loss, i) => Math.abs(loss / (expected[i] ?? Number.NaN) - 1))) : null;
    const name = `20 steps ${caseName(one)}`;
    return { name, error, ownError: LOSS_TOLERANCE, ratio: null, ok: error !== null && error <= LOSS_TOLERANCE, failed: ours.failed };
  }

  private async write(plan: ExecutionPlan): Promise<string> {
    const path = join(this.folder, `plan-${this.numPlans++}.json`);
    await writePlanFile(plan, path);
    return path;
  }

  /** Of a reference that computes in `precision`, from weights that have been rounded to `dtype`. */
  private dump(key: string, dtype: ModelDtype, precision: 'float64' | ModelDtype): string {
    return join(this.folder, `reference-${key}-${dtype}-${precision}`);
  }

  /** transformers' own error in `dtype` against itself in fp64. */
  private ownError(key: string, plan: string, dtype: ModelDtype, documents: Documents): Promise<number | null> {
    const name = `${key}/${dtype}`;
    const known = this.references.get(name) ?? this.runReferences(key, plan, dtype, documents);
    this.references.set(name, known);
    return known;
  }

  private async runReferences(key: string, plan: string, dtype: ModelDtype, documents: Documents): Promise<number | null> {
    for (const precision of ['float64', dtype] as const) {
      await this.harness.mustRun({
        kind: 'reference',
        plan,
        data: this.data,
        steps: 1,
        dtype: precision,
        dumpGrads: this.dump(key, dtype, precision),
        ...documents,
      });
    }
    const [left, right] = [this.dump(key, dtype, dtype), this.dump(key, dtype, 'float64')];
    const { error } = await this.harness.mustRun({ kind: 'compare', left, right });
    return error ?? null;
  }
}

const STEADY: ParityCase = { ...FPDT_CASE, gradientAccumulationSteps: 2, segments: 'twos' };
/** Stage 1, two replicas, a tied embedding, everything kept on the device but the checkpoints, which are on disk. */
const RESIDENT: ParityCase = {
  ...STEADY,
  dataParallelSize: 2,
  zeroStage: 1,
  tied: true,
  keyValues: 'hbm',
  attentionOutput: 'hbm',
  checkpoints: 'disk',
  backwardOrder: 'queryOuterDescending',
  segments: 'ones',
};

function toNamed(one: ParityCase, options: CaseOptions = {}): NamedPlan {
  return { name: caseName(one), key: referenceKey(one), plan: () => planCase(one, options) };
}

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: {
      json: { type: 'boolean', default: false },
      families: { type: 'boolean', default: false },
      limit: { type: 'string' },
      only: { type: 'string' },
      random: { type: 'string' },
      seed: { type: 'string' },
      device: { type: 'string', default: 'cpu' },
    },
  });
  const copyModes = copyModesOf(values.device);
  const say = (text: string): void => void (values.json ? process.stderr : process.stdout).write(`${text}\n`);
  const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : wholeNumber('seed', values.seed);
  const numRandom = values.random === undefined ? NUM_RANDOM : wholeNumber('random', values.random);
  const cases = values.families
    ? chosen([...familyPlans(), ...trainingPlans()], values.only ?? '', values.limit)
    : chooseCases(values.only ?? '', values.limit, numRandom, seed);
  say(`${cases.length} cases; random ones of --seed ${seed}`);
  const folder = await mkdtemp(join(tmpdir(), 'fpdt-parity-'));
  const harness = Harness.start();
  const outcomes: Outcome[] = [];
  const report = (outcome: Outcome): void => {
    outcomes.push(outcome);
    say(describe(outcome));
  };
  try {
    const run = new ParityRun(harness, folder, await writeTokens(folder), copyModes);
    for (const [i, one] of cases.entries()) report(await run.gradients(one, i));
    if (!values.families && values.only === undefined) {
      report(await run.losses(STEADY));
      report(await run.losses(RESIDENT));
      for (const dtype of ['bfloat16', 'float16'] as const) report(await run.gradients(toNamed(STEADY, { dtype }), 0));
      report(await run.gradients(toNamed({ ...STEADY, packing: true }, { dtype: 'bfloat16' }), COPY_MODES.indexOf('random')));
    }
  } finally {
    await harness.stop();
    await rm(folder, { recursive: true, force: true });
  }
  const failed = outcomes.filter(({ ok }) => !ok);
  if (values.json)
    process.stdout.write(
      `${JSON.stringify({ kind: 'parityReport', device: values.device, factor: FACTOR, seed, cases: outcomes }, null, 1)}\n`,
    );
  say(failed.length === 0 ? `parity ok: ${outcomes.length} cases` : `parity failed: ${failed.length} of ${outcomes.length} cases`);
  process.exitCode = failed.length === 0 ? 0 : 1;
}

function copyModesOf(device: string): readonly string[] {
  const found = Object.hasOwn(DEVICES, device) ? DEVICES[device] : undefined;
  if (found !== undefined) return found;
  const hint = `give one of ${Object.keys(DEVICES).join(', ')}`;
  throw new FpdtError(`--device: there is no parity run on '${device}'`, { code: 'usage', hint });
}

/** Never none: a run that checks nothing would pass. A limit is for the covering cases, and leaves out the plain kernels; the others are few. */
function chooseCases(only: string, limit: string | undefined, numRandom: number, seed: number): readonly NamedPlan[] {
  const random = mulberry32(seed);
  const covering = coveringCases(NUM_CASES).slice(0, limit === undefined ? undefined : wholeNumber('limit', limit));
  const drawn = Array.from({ length: numRandom }, () => randomCase(random));
  const plain = limit === undefined ? plainPlans() : [];
  return chosen([...namedPlans(), ...plain, ...[...covering, ...drawn].map((one) => toNamed(one))], only);
}

function chosen(all: readonly NamedPlan[], only: string, limit?: string): readonly NamedPlan[] {
  const found = all.filter(({ name }) => name.includes(only)).slice(0, limit === undefined ? undefined : wholeNumber('limit', limit));
  if (found.length > 0) return found;
  const hint = `give a part of a name such as '${all[0]?.name ?? ''}'`;
  throw new FpdtError(`--only: no case has '${only}' in its name`, { code: 'usage', hint });
}

function describe({ name, error, ownError, ratio, ok, where, failed }: Outcome): string {
  const number = (value: number | null): string => (value === null ? '-' : value.toExponential(2));
  const line = `${ok ? 'ok    ' : 'FAILED'} ${name}: ${number(error)}, own ${number(ownError)}${ratio === null ? '' : `, ratio ${ratio.toFixed(2)}`}`;
  return ok ? line : `${line} ${where ?? ''}${failed === undefined ? '' : `\n${failed}`}`;
}

await runScript(main);
