/**
 * `npm run bench:training -- [--json] [--steps 300] [--seeds 3] [--fp32]`: bf16 training on packed documents of real text under ZeRO-3 with the
 * optimizer offloaded, by `launchRun` and by a plain Hugging Face model in DeepSpeed's engine: the same weights, sequences and steps, and
 * for each seed others. Prints the losses of every step and those on held-out text in the end. Fails where these differ by more, in the mean
 * over seeds, than they do between seeds.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { parseOptions, runScript, wholeNumber } from '../scripts/options.js';
import { LOCALHOST, freePort, prepareEnvironment } from '../src/bridge/rankEnvironment.js';
import { resolvePython } from '../src/bridge/python.js';
import { type ExecutionPlan, launchRun, planRun, writePlanFile } from '../src/index.js';
import { MODEL, NUM_CHUNKS, NUM_RANKS, SEQ_LEN, deepspeedConfig, writeDocuments } from './training/settings.js';

const PEER = fileURLToPath(new URL('training/peer.py', import.meta.url));
const NUM_DOCUMENTS = 6000;

interface Curve {
  /** Of each step, the mean over its targets. */
  readonly losses: readonly number[];
  readonly heldOutLoss: number;
}

interface Row {
  readonly seed: number;
  readonly fpdt: Curve;
  readonly deepspeed: Curve;
}

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: {
      json: { type: 'boolean', default: false },
      steps: { type: 'string', default: '300' },
      seeds: { type: 'string', default: '3' },
      fp32: { type: 'boolean', default: false },
    },
  });
  const numSteps = wholeNumber('steps', values.steps, { least: 2 });
  const numSeeds = wholeNumber('seeds', values.seeds, { least: 2 });
  const folder = await mkdtemp(join(tmpdir(), 'fpdt-training-'));
  const rows: Row[] = [];
  try {
    const bench = new Bench(folder, numSteps, !values.fp32);
    for (let seed = 1; seed <= numSeeds; seed++) {
      rows.push(await bench.row(seed));
      if (!values.json) process.stdout.write(`${rowText(rows.at(-1) as Row)}\n`);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  const verdict = judge(rows);
  const dtype = values.fp32 ? 'float32' : 'bfloat16';
  const report = { kind: 'trainingBench', ...verdict, dtype, numSteps, numRanks: NUM_RANKS, seqLen: SEQ_LEN, numChunks: NUM_CHUNKS, rows };
  process.stdout.write(values.json ? `${JSON.stringify(report, null, 1)}\n` : `${verdictText(verdict)}\n`);
  process.exitCode = verdict.ok ? 0 : 1;
}

class Bench {
  private readonly folder: string;
  private readonly numSteps: number;
  private readonly isBf16: boolean;
  private readonly python = resolvePython();
  private readonly data: string;
  private readonly heldOut: string;

  constructor(folder: string, numSteps: number, isBf16: boolean) {
    this.folder = folder;
    this.numSteps = numSteps;
    this.isBf16 = isBf16;
    this.data = join(folder, 'train.jsonl');
    this.heldOut = join(folder, 'held-out.jsonl');
    writeDocuments(this.python, { data: this.data, heldOut: this.heldOut }, NUM_DOCUMENTS);
  }

  async row(seed: number): Promise<Row> {
    return { seed, fpdt: await this.ours(seed), deepspeed: await this.peers(seed) };
  }

  private async ours(seed: number): Promise<Curve> {
    const plan = await this.plan(seed, NUM_RANKS);
    const { result } = await launchRun(plan, { data: this.data, evalData: this.heldOut, python: this.python });
    const { steps, evaluations } = await result;
    return { losses: steps.map(({ loss }) => rounded(loss)), heldOutLoss: rounded(evaluations.at(-1)?.loss) };
  }

  private async peers(seed: number): Promise<Curve> {
    const plan = join(this.folder, 'peer.json');
    const config = join(this.folder, 'ds_config.json');
    await writePlanFile(await this.plan(seed, 1), plan);
    await writeFile(config, JSON.stringify(deepspeedConfig(1, this.isBf16)));
    const env = { ...prepareEnvironment({}), OMP_NUM_THREADS: '1', DS_ACCELERATOR: 'cpu' };
    const data = ['--plan', plan, '--data', this.data];
    for (const path of [this.data, this.heldOut]) await execa(this.python, ['-m', 'fpdt.prepare', '--plan', plan, '--data', path], { env });
    const launcher = ['--nproc-per-node', String(NUM_RANKS), '--master-addr', LOCALHOST, '--master-port', String(await freePort())];
    const given = [...data, '--config', config, '--eval-data', this.heldOut, '--steps', String(this.numSteps)];
    const { stdout } = await execa(this.python, ['-m', 'torch.distributed.run', ...launcher, PEER, ...given], { env });
    const said = JSON.parse(stdout.slice(stdout.lastIndexOf('{"losses"'))) as Curve;
    return { losses: said.losses.map(rounded), heldOutLoss: rounded(said.heldOutLoss) };
  }

  /** Of ranks that share each sequence, or with one rank a sequence, of what replicas take. */
  private plan(seed: number, sequenceParallelSize: number): Promise<ExecutionPlan> {
    const replicas = NUM_RANKS / sequenceParallelSize;
    return planRun({
      model: MODEL,
      cluster: { gpus: NUM_RANKS, gpu: 'cpu' },
      deepspeed: deepspeedConfig(NUM_RANKS / replicas, this.isBf16),
      run: {
        seqLen: SEQ_LEN,
        numChunks: NUM_CHUNKS,
        policy: 'fpdt',
        packing: true,
        evaluate: true,
        numSteps: this.numSteps,
        seed,
        sequenceParallelSize,
      },
    });
  }
}

/** To what a curve shows. NaN, which JSON has as null, is no curve. */
function rounded(loss: number | null | undefined): number {
  return loss === null || loss === undefined ? Number.NaN : Number(loss.toFixed(4));
}

interface Verdict {
  readonly ok: boolean;
  /** Mean over seeds, of held-out losses in the end. */
  readonly fpdt: number;
  readonly deepspeed: number;
  readonly difference: number;
  /** Largest less smallest over seeds, of the peer. */
  readonly spread: number;
  /** Largest difference of a step's losses of one seed. */
  readonly worstStep: number;
}

function judge(rows: readonly Row[]): Verdict {
  const mean = (losses: readonly number[]): number => losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  const peers = rows.map(({ deepspeed }) => deepspeed.heldOutLoss);
  const [fpdt, deepspeed] = [mean(rows.map((row) => row.fpdt.heldOutLoss)), mean(peers)];
  const difference = Math.abs(fpdt - deepspeed);
  const spread = Math.max(...peers) - Math.min(...peers);
  const steps = rows.flatMap((row) => row.fpdt.losses.map((loss, step) => Math.abs(loss - (row.deepspeed.losses[step] ?? Number.NaN))));
  return { ok: difference <= spread, fpdt, deepspeed, difference, spread, worstStep: Math.max(...steps) };
}

function rowText({ seed, fpdt, deepspeed }: Row): string {
  const ends = (curve: Curve): string =>
    `${curve.losses[0]?.toFixed(4)} to ${curve.losses.at(-1)?.toFixed(4)}, held out ${curve.heldOutLoss}`;
  return `seed ${seed}: fpdt ${ends(fpdt)}; DeepSpeed ${ends(deepspeed)}`;
}

function verdictText({ ok, difference, spread, worstStep }: Verdict): string {
  const said = `held-out losses differ by ${difference.toFixed(4)} in the mean, by ${spread.toFixed(4)} between seeds; worst step ${worstStep.toFixed(4)}`;
  return `${ok ? 'ok' : 'FAIL'}: ${said}`;
}

await runScript(main);
