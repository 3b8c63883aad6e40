/**
 * `npm run mutate -- [--json] [--sample n] [--only text] [--plan plan.json --data file]`: breaks a plan in many ways, with no verifier in the
 * way, and runs every mutant; `--only`: of its own plans with this in their names. With --device it is the CUDA runtime that is broken, and run
 * on a made-up device: all mutants, or a sample.
 * A mutant is killed when the worker refuses it or its gradients differ in any order of asynchronous
 * ops; a survivor must be explained by a rule below. Legal reorderings and re-layouts must give bit-identical gradients.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { layoutSchedule, mulberry32 } from '../../src/address/layout.js';
import { type ExecutionPlan, FpdtError, readPlanFile, writePlanFile } from '../../src/index.js';
import { sealPlan } from '../../src/plan/encode.js';
import { parseOptions, runScript, wholeNumber } from '../options.js';
import { FPDT_CASE, type ParityCase, caseName } from '../parity/cases.js';
import { Harness, type JobResult } from '../parity/harness.js';
import { planCase, writeTokens } from '../parity/setting.js';
import { explainSurvivor } from './explain.js';
import { type Candidate, OPERATORS, type Operator, type Verdict } from './candidate.js';
import { mutateDevice } from './device.js';
import { allMutants } from './mutations.js';
import { reorderPlan } from './reorder.js';

/** Keys, values and layer inputs on the host, segments of unequal length: rings, rebuilds that keep their outputs and an outer loop over keys. */
const HOSTED: ParityCase = { ...FPDT_CASE, kvTileChunks: 3, rebuiltOutput: 'host', rebuildsLast: true, segments: 'unequal' };
/** Two ranges of layers, saved outputs, a file, kernels with rectangles and windows, documents. */
const MIXED: ParityCase = {
  ...HOSTED,
  window: 20,
  tied: true,
  kernel: 'reference',
  numTokenTiles: 3,
  keyValues: 'hbm',
  keyValueGradients: 'host',
  attentionOutput: 'host',
  rebuiltOutput: 'recompute',
  rebuildsLast: false,
  checkpoints: 'disk',
  hiddenGradients: 'host',
  backwardOrder: 'queryOuterDescending',
  segments: 'twos',
  packing: true,
  ranges: 'mixed',
};
/** Orders of asynchronous ops each mutant runs under, until one tells it from the plan. */
const ORDERS = [
  { copy_mode: 'lazy', seed: 0 },
  { copy_mode: 'random', seed: 1 },
  { copy_mode: 'random', seed: 2 },
  { copy_mode: 'eager', seed: 0 },
] as const;
/** More of them for a missing wait, which shows only in some orders. */
const WAIT_ORDERS = [ORDERS[0], ...Array.from({ length: 12 }, (_, i) => ({ copy_mode: 'random', seed: i + 1 }) as const)];
const WAIT_OPERATORS: ReadonlySet<Operator> = new Set(['dropWait', 'dropEntryWait']);
/** A mutant may wait for a message that never comes: no rank then makes progress. */
const IDLE_SECONDS = 5;

/** A short document and a long one: both end inside of chunks, and no block of attention is left out for want of rows. */
const SHORT_DOCUMENT_TOKENS = 5;

/** Of each operator of plans. */
const DEFAULT_SAMPLE = 12;

interface MutationReport {
  readonly plan: string;
  readonly verdicts: readonly Verdict[];
}

class MutationRun {
  private readonly harness: Harness;
  private readonly folder: string;
  private readonly data: string;
  private numRuns = 0;
  private losses: readonly number[] | undefined;

  constructor(harness: Harness, folder: string, data: string) {
    this.harness = harness;
    this.folder = folder;
    this.data = data;
  }

  get baseline(): string {
    return join(this.folder, 'baseline');
  }

  async runBaseline(plan: ExecutionPlan): Promise<void> {
    const ran = await this.execute(plan, { copy_mode: 'eager' }, this.baseline);
    if (ran.failed !== undefined) throw new Error(`the plan itself fails: ${ran.failed}\n${ran.traceback ?? ''}`);
    this.losses = ran.losses;
  }

  async judge(candidate: Candidate): Promise<Verdict> {
    const { operator, what } = candidate;
    const mutant = candidate.build();
    for (const order of WAIT_OPERATORS.has(operator) ? WAIT_ORDERS : ORDERS) {
      const verdict = await this.difference(mutant, order);
      if (verdict !== undefined) return { operator, what, ...verdict };
    }
    const reason = explainSurvivor(candidate, mutant);
    return { operator, what, fate: reason === undefined ? 'survived' : 'equal', detail: reason ?? 'gradients equal in every order tried' };
  }

  async difference(
    mutant: ExecutionPlan,
    options: Readonly<Record<string, unknown>>,
  ): Promise<Pick<Verdict, 'fate' | 'detail'> | undefined> {
    const dump = join(this.folder, `run-${this.numRuns++}`);
    const ran = await this.execute(mutant, options, dump);
    if (ran.failed !== undefined) return { fate: 'refused', detail: firstLine(ran.failed) };
    const compared = await this.harness.run({ kind: 'compare', left: dump, right: this.baseline });
    await rm(dump, { recursive: true, force: true });
    if (compared.failed !== undefined) return { fate: 'changed', detail: firstLine(compared.failed) };
    if (compared.error === 0 && ran.losses?.[0] === this.losses?.[0]) return undefined;
    if (compared.error === 0) return { fate: 'changed', detail: `loss ${ran.losses?.[0]} instead of ${this.losses?.[0]}` };
    return { fate: 'changed', detail: `${compared.error === null ? 'NaN' : compared.error?.toExponential(1)} in ${compared.where}` };
  }

  private async execute(plan: ExecutionPlan, options: Readonly<Record<string, unknown>>, dumpGrads: string): Promise<JobResult> {
    const path = join(this.folder, 'plan.json');
    await writePlanFile(plan, path);
    return await this.harness.run({
      kind: 'worker',
      plan: path,
      data: this.data,
      steps: 1,
      worldSize: plan.cluster.numRanks,
      dumpGrads,
      options: { ...options, disk_folder: this.folder },
      ...documentsOf(plan),
      idleSeconds: IDLE_SECONDS,
    });
  }
}

/** Which the rank draws labels and weights of. */
function documentsOf({ run }: ExecutionPlan) {
  if (run.packing !== true) return {};
  return { documents: 1, lengths: [SHORT_DOCUMENT_TOKENS, run.seqLen - SHORT_DOCUMENT_TOKENS] };
}

function firstLine(text: string): string {
  return text.split('\n')[0]?.slice(0, 160) ?? '';
}

/** The same number of each operator, drawn with a fixed seed. */
function sample(candidates: readonly Candidate[], perOperator: number): readonly Candidate[] {
  const random = mulberry32(11);
  return OPERATORS.flatMap((operator) => {
    const pool = candidates.filter((candidate) => candidate.operator === operator).map((candidate) => ({ candidate, key: random() }));
    return pool
      .sort((a, b) => a.key - b.key)
      .slice(0, perOperator)
      .map(({ candidate }) => candidate);
  });
}

async function mutatePlan(
  run: MutationRun,
  name: string,
  plan: ExecutionPlan,
  perOperator: number,
  say: (text: string) => void,
): Promise<readonly Verdict[]> {
  await run.runBaseline(plan);
  const verdicts: Verdict[] = [];
  for (const candidate of sample(allMutants(plan), perOperator)) {
    const verdict = await run.judge(candidate);
    verdicts.push(verdict);
    say(`${name} ${verdict.fate.padEnd(8)} ${verdict.operator}: ${verdict.what}: ${verdict.detail}`);
  }
  for (const [seed, order] of ORDERS.entries()) {
    for (const [operator, changed] of [
      ['reorder', reorderPlan(plan, mulberry32(seed))],
      ['relayout', relayout(plan, seed)],
    ] as const) {
      const difference = await run.difference(changed, order);
      verdicts.push({
        operator,
        what: `seed ${seed}`,
        fate: difference === undefined ? 'equal' : 'survived',
        detail: difference?.detail ?? 'bit-identical',
      });
      say(
        `${name} ${operator} seed ${seed} ${order.copy_mode}: ${difference === undefined ? 'bit-identical' : `DIFFERS: ${difference.detail}`}`,
      );
    }
  }
  return verdicts;
}

function relayout(plan: ExecutionPlan, seed: number): ExecutionPlan {
  return sealPlan({ ...plan, ...layoutSchedule(plan, { seed }) });
}

async function planReports(
  harness: Harness,
  folder: string,
  { plan: path, data, only = '' }: { readonly plan?: string; readonly data?: string; readonly only?: string },
  perOperator: number,
  say: (text: string) => void,
): Promise<readonly MutationReport[]> {
  const run = new MutationRun(harness, folder, data ?? (await writeTokens(folder)));
  const plans =
    path === undefined
      ? await Promise.all(casesWith(only).map(async (one) => [caseName(one), await planCase(one)] as const))
      : [[path, await readPlanFile(path)] as const];
  const reports: MutationReport[] = [];
  for (const [name, plan] of plans) reports.push({ plan: name, verdicts: await mutatePlan(run, name, plan, perOperator, say) });
  return reports;
}

/** Never none: a run that checks nothing would pass. */
function casesWith(text: string): readonly ParityCase[] {
  const found = [HOSTED, MIXED].filter((one) => caseName(one).includes(text));
  if (found.length > 0) return found;
  const hint = `give a part of '${caseName(HOSTED)}' or '${caseName(MIXED)}'`;
  throw new FpdtError(`--only: no plan has '${text}' in its name`, { code: 'usage', hint });
}

/** As `mutatePlan`, of the runtime that plans run on. One rank: what the runtime orders is the same on all. */
async function deviceReport(
  folder: string,
  path: string | undefined,
  perOperator: number | undefined,
  say: (text: string) => void,
): Promise<MutationReport> {
  const cases = [HOSTED, MIXED].map((one) => planCase({ ...one, sequenceParallelSize: 1 }));
  const plans = path === undefined ? await Promise.all(cases) : [await readPlanFile(path)];
  const verdicts = await mutateDevice(plans, folder, perOperator, ({ operator, what, fate, detail }) =>
    say(`device ${fate.padEnd(8)} ${operator}: ${what}: ${detail}`),
  );
  return { plan: path ?? 'device', verdicts };
}

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: {
      json: { type: 'boolean', default: false },
      sample: { type: 'string' },
      only: { type: 'string' },
      device: { type: 'boolean', default: false },
      plan: { type: 'string' },
      data: { type: 'string' },
    },
  });
  if (values.only !== undefined && (values.device || values.plan !== undefined)) {
    throw new FpdtError("--only is of mutate's own plans", { code: 'usage', hint: 'leave --only out' });
  }
  if (values.device && values.data !== undefined) {
    throw new FpdtError('--device takes no --data: steps of the made-up device have tokens of their own', {
      code: 'usage',
      hint: 'leave --data out',
    });
  }
  const asked = values.sample === undefined ? undefined : wholeNumber('sample', values.sample);
  const say = (text: string): void => void (values.json ? process.stderr : process.stdout).write(`${text}\n`);
  const folder = await mkdtemp(join(tmpdir(), 'fpdt-mutate-'));
  const harness = values.device ? undefined : Harness.start();
  const reports: MutationReport[] = [];
  try {
    if (harness === undefined) reports.push(await deviceReport(folder, values.plan, asked, say));
    else reports.push(...(await planReports(harness, folder, values, asked ?? DEFAULT_SAMPLE, say)));
  } finally {
    await harness?.stop();
    await rm(folder, { recursive: true, force: true });
  }
  const verdicts = reports.flatMap((report) => report.verdicts);
  const survivors = verdicts.filter(({ fate }) => fate === 'survived');
  const killed = verdicts.filter(({ fate }) => fate === 'refused' || fate === 'changed').length;
  if (values.json) process.stdout.write(`${JSON.stringify({ kind: 'mutationReport', reports }, null, 1)}\n`);
  say(
    `mutate ${survivors.length === 0 ? 'ok' : 'failed'}: ${killed} killed, ${verdicts.length - killed - survivors.length} equal by an explained rule, ${survivors.length} unexplained`,
  );
  process.exitCode = survivors.length === 0 ? 0 : 1;
}

await runScript(main);
