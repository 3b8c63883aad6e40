/**
 * `npm run chaos -- [--rounds n] [--seed n] [--json]`: in each round a run of 20 steps is hit by SIGKILL at a random moment, in turn one of its
 * ranks and its controller, and goes on until it is done: ranks by `--restarts`, the controller by the same command once more. The last loss must
 * be that of a run that nobody hit, to the bit; no process may be left; and no checkpoint that was whole may be lost.
 *
 * With `--start-up [--patience seconds]`: rounds of startUp.ts instead.
 */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { mulberry32 } from '../../src/address/layout.js';
import { isGroupAlive } from '../../src/bridge/processGroup.js';
import { type ExecutionPlan, FpdtError, planRun, writePlanFile } from '../../src/index.js';
import { parseOptions, runScript, wholeNumber } from '../options.js';
import { smallDeepSpeed, smallModel, writeTokens } from '../parity/setting.js';
import { type Ended, Life } from './life.js';
import { chaosOfStartUp, type StartUpReport } from './startUp.js';

const STEPS = 20;
const EVERY = 3;
const NUM_RANKS = 2;
/** A round needs one. */
const RESTARTS = 1;
const LEAVE_MS = 5000;
const POLL_MS = 50;

interface Round {
  readonly target: string;
  readonly atSeconds: number;
  readonly wasHit: boolean;
  readonly numRestarts: number;
  readonly newestBefore: number;
  readonly seconds: number;
  readonly problem: string | null;
}

async function main(): Promise<void> {
  const { values } = parseOptions({
    options: {
      rounds: { type: 'string', default: '3' },
      seed: { type: 'string', default: '1' },
      json: { type: 'boolean', default: false },
      'start-up': { type: 'boolean', default: false },
      patience: { type: 'string', default: '3' },
    },
  });
  const numRounds = wholeNumber('rounds', values.rounds);
  const seed = wholeNumber('seed', values.seed);
  const random = mulberry32(seed);
  const say = values.json ? () => undefined : (line: string) => process.stdout.write(`${line}\n`);
  const folder = await mkdtemp(join(tmpdir(), 'fpdt-chaos-'));
  try {
    const patienceSeconds = wholeNumber('patience', values.patience);
    const report = values['start-up']
      ? await startUp(folder, numRounds, { seed, random, patienceSeconds }, say)
      : await chaos(folder, numRounds, random, say);
    if (values.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    if (report.numFailed > 0) throw failure(report.rounds);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

type Moments = Parameters<typeof chaosOfStartUp>[1];

async function startUp(folder: string, numRounds: number, moments: Moments, say: (line: string) => void): Promise<StartUpReport> {
  const [plan, hostfile] = [join(folder, 'plan.json'), join(folder, 'hosts')];
  await writePlanFile(await chaosPlan(), plan);
  await writeFile(hostfile, '127.0.0.1 slots=1\n127.0.0.2 slots=1\n');
  const args = [plan, '--data', await writeTokens(folder), '--steps', '100000'];
  say(`seed ${moments.seed}`);
  return chaosOfStartUp(numRounds, moments, { args, hostfile, ssh: 'test/bridge/hosts/localShell.sh' }, say);
}

interface Report {
  readonly kind: 'chaos';
  readonly steps: number;
  readonly lastLoss: number | null;
  readonly numHit: number;
  readonly numFailed: number;
  readonly rounds: readonly Round[];
}

async function chaos(folder: string, numRounds: number, random: () => number, say: (line: string) => void): Promise<Report> {
  const plan = join(folder, 'plan.json');
  await writePlanFile(await chaosPlan(), plan);
  const data = await writeTokens(folder);
  const quiet = await new Life([plan, '--data', data]).ended;
  if (quiet.exitCode !== 0) throw new FpdtError(`the run that nobody hits failed: ${quiet.stderr}`, { code: 'chaos-failed' });
  const lastLoss = quiet.losses.get(STEPS - 1) ?? null;
  say(`a run of ${STEPS} steps ends with loss ${lastLoss} after ${quiet.seconds.toFixed(1)} s`);
  const rounds: Round[] = [];
  for (let number = 0; number < numRounds; number += 1) {
    const saved = join(folder, `saved-${number}`);
    const args = [
      plan,
      '--data',
      data,
      '--checkpoint',
      saved,
      '--every',
      String(EVERY),
      '--resume',
      'auto',
      '--restarts',
      String(RESTARTS),
    ];
    const target = number % 2 === 0 ? Math.floor(random() * NUM_RANKS) : null;
    const round = await hit(args, saved, target, random() * quiet.seconds, lastLoss);
    await rm(saved, { recursive: true, force: true });
    rounds.push(round);
    const end = round.problem ?? `the same loss, ${round.numRestarts} restarts, ${round.seconds.toFixed(1)} s`;
    say(`${number + 1}/${numRounds}  ${round.target} at ${round.atSeconds.toFixed(2)} s${round.wasHit ? '' : ' (missed)'}: ${end}`);
  }
  const numFailed = rounds.filter(({ problem }) => problem !== null).length;
  return { kind: 'chaos', steps: STEPS, lastLoss, numHit: rounds.filter(({ wasHit }) => wasHit).length, numFailed, rounds };
}

/** Of a rank, or of the controller where `target` is null. */
async function hit(
  args: readonly string[],
  saved: string,
  target: number | null,
  atSeconds: number,
  lastLoss: number | null,
): Promise<Round> {
  const life = new Life(args);
  await Promise.race([sleep(atSeconds * 1000), life.ended]);
  // A rank is there a moment after its controller.
  while (target !== null && life.pids.length < NUM_RANKS && !(await isOver(life))) await sleep(POLL_MS);
  const before = await newest(saved);
  const wasHit = target === null ? !(await isOver(life)) : life.killRank(target, NUM_RANKS);
  if (target === null) life.killController();
  let ended = await life.ended;
  const ends = [ended];
  if (target === null && wasHit) {
    await allGone(ended.pids);
    ended = await new Life(args).ended;
    ends.push(ended);
  }
  const problem = await problemOf(ended, ends, saved, before, lastLoss);
  const seconds = ends.reduce((sum, one) => sum + one.seconds, 0);
  const name = target === null ? 'controller' : `rank ${target}`;
  return { target: name, atSeconds, wasHit, numRestarts: ended.numRestarts, newestBefore: before, seconds, problem };
}

async function problemOf(
  ended: Ended,
  ends: readonly Ended[],
  saved: string,
  before: number,
  lastLoss: number | null,
): Promise<string | null> {
  if (ended.exitCode !== 0) return `ended with exit code ${ended.exitCode}: ${ended.stderr.slice(-2000)}`;
  const found = ended.losses.get(STEPS - 1);
  // Where the kill came after the last step, there was none left to run.
  if (found !== undefined && found !== lastLoss) return `the last loss is ${found}, expected ${lastLoss}`;
  if (found === undefined && (await newest(saved)) !== STEPS) return 'the last step was not run';
  const first = Math.min(...ended.losses.keys(), STEPS);
  if (ends.length > 1 && first < before) return `went on at step ${first}, although a checkpoint of step ${before} was whole`;
  const left = (await readdir(saved)).filter((name) => name.includes('.'));
  if (left.length > 0) return `left ${left.join(', ')}`;
  const alive = await allGone(ends.flatMap(({ pids }) => pids));
  return alive.length > 0 ? `left the processes ${alive.join(', ')}` : null;
}

/** The step of the newest checkpoint; 0: there is none. */
async function newest(saved: string): Promise<number> {
  const names = await readdir(saved).catch(() => []);
  return Math.max(0, ...names.flatMap((name) => (/^step-\d+$/.test(name) ? [Number(name.slice(5))] : [])));
}

async function isOver(life: Life): Promise<boolean> {
  return await Promise.race([life.ended.then(() => true), sleep(0, false)]);
}

/** Groups of processes that are still there after a while. */
async function allGone(pids: readonly number[]): Promise<readonly number[]> {
  for (let waitedMs = 0; waitedMs < LEAVE_MS && pids.some(isGroupAlive); waitedMs += POLL_MS) await sleep(POLL_MS);
  return pids.filter(isGroupAlive);
}

async function chaosPlan(): Promise<ExecutionPlan> {
  return await planRun({
    model: smallModel({ numHeads: 8, numKvHeads: 4, tied: false, window: null }),
    cluster: { gpus: NUM_RANKS, gpu: 'cpu', ranksPerNode: 1 },
    run: { seqLen: 59, numSteps: STEPS, dtype: 'float32', policy: 'fpdt', numChunks: 2 },
    deepspeed: smallDeepSpeed(3, 1),
  });
}

function failure(rounds: readonly Pick<Round, 'target' | 'problem'>[]): FpdtError {
  const failed = rounds.filter(({ problem }) => problem !== null);
  const [first] = failed;
  return new FpdtError(`${failed.length} of ${rounds.length} rounds failed, the first: ${first?.target}: ${first?.problem}`, {
    code: 'chaos-failed',
    hint: 'the same --seed hits at the same moments, as far as a machine repeats itself',
  });
}

await runScript(main);
