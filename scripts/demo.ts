/**
 * The whole path on real input: calibrate, plan, train and evaluate the small Llama of a Hugging Face folder on 2 ranks under ZeRO-3, hold
 * the run against its plan, and write the trained model as such a folder; then the same training once more, stopped half-way and gone on
 * with on 4 ranks, which must end with the same losses.
 *
 *   npm run demo [-- --policy NAME --steps 6 --seq-len 12288 --chunks 8 --verbose --ignore-step-time]
 *
 * The last line is `demo ok: ...` (exit 0) or `demo failed: ...` (exit 1; 130 after Ctrl-C).
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { calibrateMachine, speedFactor } from '../src/bridge/calibration.js';
import type { CalibrationInput } from '../src/bridge/calibrationProbes.js';
import { calibrationText } from '../src/bridge/calibrationFile.js';
import { resolvePython } from '../src/bridge/python.js';
import { INTERRUPTED } from '../src/cli/exitCodes.js';
import { withInterrupt } from '../src/cli/interrupt.js';
import { CONSOLE, printError } from '../src/cli/output.js';
import { type ExecutionPlan, launchRun, type LaunchOptions, planRun, planSummary, type RunResult, writePlanFile } from '../src/index.js';
import { compareRun, comparisonToText } from '../src/report/compare.js';
import { evaluationLine, progressLine } from '../src/report/progress.js';
import { judge, verdictLine } from '../src/report/verdict.js';
import { formatBytes } from '../src/spec/sizes.js';
import type { PolicyName } from '../src/spec/strategy.js';
import { parseOptions, wholeNumber } from './options.js';
import { writeStandardLibrary } from './demo/python.js';
import { holdAgainst, trainInTwoLives } from './demo/stopped.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const FOLDER = join(ROOT, '.fpdt', 'demo');
/** A small Llama that has learned from other text: config.json and safetensors. */
const MODEL = join(ROOT, 'examples', 'demo', 'model');
/** What calibration found. */
const CLUSTER = join(FOLDER, 'cluster.json');
const TRAINED = join(FOLDER, 'model');
const DEEPSPEED = join(ROOT, 'examples', 'demo', 'ds_config.json');
const CHECKPOINTS = join(FOLDER, 'checkpoints');
const NUM_RANKS = 2;
/** Of the second life of a run that was stopped. */
const OTHER_RANKS = 4;
/** The fewest with a half to stop at and a step to go on with. */
const LEAST_STEPS = 3;
const CALIBRATION_SECONDS = 15;

interface Options {
  readonly policy: PolicyName;
  readonly numSteps: number;
  readonly seqLen: number;
  readonly numChunks: number;
  readonly verbose: boolean;
  /** On a machine that others share: everything is judged but the step time. */
  readonly ignoreStepTime: boolean;
}

async function main(): Promise<number> {
  const options = readOptions();
  const python = resolvePython();
  mkdirSync(FOLDER, { recursive: true });
  const plan = await makePlan(python, options);
  const data = writeData(python, plan);
  let failures: readonly string[] = [];
  const exitCode = await withInterrupt(CONSOLE, async (signal) => {
    const launch = { ...data, python, signal, weights: MODEL };
    const result = await train(plan, launch, options);
    failures = [...(await judgeRun(plan, result, python, options)), ...(await stopAndGoOn(plan, result, launch, options))];
    if (failures.length === 0)
      say(`\ndemo ok: ${verdictLine(compareRun(plan, result))}; stopped, gone on with on ${OTHER_RANKS} ranks: same losses`);
  });
  if (exitCode === INTERRUPTED) return exitCode;
  if (failures.length > 0) say(`demo failed: ${failures.join('; ')}`);
  return failures.length > 0 ? 1 : 0;
}

async function makePlan(python: string, options: Options): Promise<ExecutionPlan> {
  title(`Calibrating this machine (about ${CALIBRATION_SECONDS} s)`);
  const calibrated = await calibrateMachine(python, calibration(options.seqLen, options.numChunks));
  writeFileSync(CLUSTER, `${JSON.stringify(calibrated, null, 2)}\n`);
  say(calibrationText(calibrated));
  title('Planning');
  const plan = await planRun({ model: MODEL, cluster: CLUSTER, run: runInput(options, NUM_RANKS), deepspeed: DEEPSPEED });
  await writePlanFile(plan, join(FOLDER, 'plan.json'));
  say(planSummary(plan));
  say(
    `\nwrote ${relative(ROOT, join(FOLDER, 'plan.json'))}; look into it: npx fpdt show ${relative(ROOT, join(FOLDER, 'plan.json'))} layerBackward`,
  );
  return plan;
}

function runInput({ policy, numSteps, seqLen, numChunks }: Options, numRanks: number) {
  return { seqLen, numChunks, policy, numSteps, sequenceParallelSize: numRanks, seed: 0, evaluate: true };
}

function calibration(seqLen: number, numChunks: number): CalibrationInput {
  const chunkTokens = Math.ceil(seqLen / numChunks);
  return { model: MODEL, deepspeed: DEEPSPEED, ranks: NUM_RANKS, chunkTokens, seconds: CALIBRATION_SECONDS };
}

/** How much faster (above 1) or slower this machine is than when the plan's cluster was measured. */
async function speedSince({ run, cluster }: ExecutionPlan, python: string): Promise<number> {
  const input = calibration(run.seqLen, run.numChunks ?? 1);
  return speedFactor(input, cluster, await calibrateMachine(python, input));
}

/** Text to train on and, of other files, to evaluate with. */
function writeData(python: string, { run }: ExecutionPlan): Pick<LaunchOptions, 'data' | 'evalData'> {
  const [data, evalData] = [join(FOLDER, 'stdlib.txt'), join(FOLDER, 'held-out.txt')];
  const { folder, numFiles } = writeStandardLibrary(python, data, run.numSteps * (run.seqLen + 1));
  const heldOut = writeStandardLibrary(python, evalData, run.seqLen + 1, { fromTheEnd: true });
  title(`Training on ${numFiles} source files of ${folder}, a byte a token; evaluating with ${heldOut.numFiles} others`);
  return { data, evalData };
}

async function train(plan: ExecutionPlan, launch: LaunchOptions, { verbose }: Options): Promise<RunResult> {
  rmSync(TRAINED, { recursive: true, force: true });
  const evalEvery = Math.floor(plan.run.numSteps / 2);
  const run = await launchRun(plan, { ...launch, evalEvery, evalSequences: 1, export: TRAINED, checkShapes: true });
  say('parameter shapes: planner and transformers agree');
  for await (const event of run) {
    if (event.type === 'ready')
      say(`${plan.cluster.numRanks} ranks ready in ${event.seconds.toFixed(1)} s with plan ${event.digest.slice(0, 12)}`);
    if (event.type === 'step') say(progressLine(plan, event.step));
    if (event.type === 'evaluation') say(evaluationLine(plan, event.evaluation));
    if (event.type === 'exported')
      say(`wrote ${relative(ROOT, TRAINED)}: ${event.numWeights} weights, ${formatBytes(event.bytes)}; from_pretrained loads it`);
    if (event.type === 'log' && verbose) process.stderr.write(`rank ${event.rank ?? '-'}: ${event.line}\n`);
  }
  return run.result;
}

/** Returns what went against the plan. */
async function judgeRun(plan: ExecutionPlan, result: RunResult, python: string, { ignoreStepTime }: Options): Promise<readonly string[]> {
  const comparison = compareRun(plan, result);
  title('Planned against measured');
  say(comparisonToText(comparison));
  const factor = ignoreStepTime ? undefined : await speedSince(plan, python);
  const { failures, kept } = judge(comparison, { stepTime: !ignoreStepTime, ...(factor === undefined ? {} : { speedFactor: factor }) });
  title('Assertions');
  sayPromises([...kept, 'ZeRO-3 held no other layer gathered during a section (each rank checks every section)'], failures);
  return failures;
}

/** Returns what a run that is stopped and goes on has other than `whole`, which was not. */
async function stopAndGoOn(plan: ExecutionPlan, whole: RunResult, launch: LaunchOptions, options: Options): Promise<readonly string[]> {
  title(`The same ${plan.run.numSteps} steps, stopped half-way and gone on with on ${OTHER_RANKS} ranks`);
  const cluster = { ...plan.cluster, numRanks: OTHER_RANKS, ranksPerNode: OTHER_RANKS };
  const otherPlan = await planRun({ model: MODEL, cluster, run: runInput(options, OTHER_RANKS), deepspeed: DEEPSPEED });
  const lives = await trainInTwoLives(plan, otherPlan, { ...launch, evalSequences: 1, checkpoint: CHECKPOINTS }, say);
  const { kept, failures } = holdAgainst(whole, lives);
  title('Assertions');
  sayPromises(kept, failures);
  return failures;
}

function sayPromises(kept: readonly string[], failures: readonly string[]): void {
  for (const line of kept) say(`ok      ${line}`);
  for (const line of failures) say(`FAILED  ${line}`);
}

function readOptions(): Options {
  const { values } = parseOptions({
    options: {
      policy: { type: 'string', default: 'auto' },
      steps: { type: 'string', default: '6' },
      'seq-len': { type: 'string', default: '12288' },
      chunks: { type: 'string', default: '8' },
      verbose: { type: 'boolean', default: false },
      'ignore-step-time': { type: 'boolean', default: false },
    },
  });
  return {
    policy: values.policy as PolicyName,
    numSteps: wholeNumber('steps', values.steps, { least: LEAST_STEPS }),
    seqLen: wholeNumber('seq-len', values['seq-len']),
    numChunks: wholeNumber('chunks', values.chunks),
    verbose: values.verbose,
    ignoreStepTime: values['ignore-step-time'],
  };
}

function title(text: string): void {
  say(`\n== ${text}`);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

try {
  process.exitCode = await main();
} catch (error) {
  printError(CONSOLE, error, false);
  say(`demo failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
