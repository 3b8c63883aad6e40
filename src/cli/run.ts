/** `fpdt run`: starts the ranks of a plan file, shows progress, stops cleanly on Ctrl-C. */
import { launchRun } from '../bridge/launchRun.js';
import type { RunEvent } from '../bridge/events.js';
import type { Run } from '../bridge/run.js';
import type { RunResult } from '../bridge/runResult.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { readPlanFile } from '../plan/file.js';
import { compareRun, comparisonToText } from '../report/compare.js';
import { checkpointLine, checkpointLines } from '../report/checkpoints.js';
import { evaluationLine, progressLine } from '../report/progress.js';
import { FpdtError } from '../spec/errors.js';
import { formatBytes } from '../spec/sizes.js';
import { modelFolder } from './modelPath.js';
import { STOPPED } from './exitCodes.js';
import { withInterrupt, withStop } from './interrupt.js';
import { errorToJson, type Output } from './output.js';
import { isForSlurm, submitCommand, thisProgram } from './slurm.js';

type LaunchOptions = Parameters<typeof launchRun>[1];

/** Returns the exit code: 0; 75 after Ctrl-C or SIGTERM with a checkpoint, 130 without. Throws when the run fails. */
export async function runCommand(path: string, options: Readonly<Record<string, unknown>>, output: Output): Promise<number> {
  if (isForSlurm(options)) return submitCommand(path, options, output);
  const { json, log: loggers, ...rest } = options;
  const launch = { ...rest, loggers } as unknown as LaunchOptions;
  checkTrace(launch);
  if (launch.onUnwritable !== undefined && launch.runFolder === undefined)
    throw new FpdtError('--on-unwritable needs --run-folder', { code: 'usage', hint: 'give both, or leave --on-unwritable out' });
  const plan = await readPlanFile(path);
  const shown = launch.steps === undefined ? plan : { ...plan, run: { ...plan.run, numSteps: launch.steps } };
  const weights = launch.weights === undefined ? undefined : modelFolder(launch.weights);
  const tokenizer = launch.tokenizer === undefined ? undefined : modelFolder(launch.tokenizer);
  const onPreparation = (line: string): void => output.err(line);
  const print = json === true ? jsonPrinter(output) : textPrinter(shown, output);
  const train = async (signals: Pick<LaunchOptions, 'signal' | 'stopSignal'>): Promise<RunResult> => {
    const run = await launchRun(plan, { ...launch, weights, tokenizer, onPreparation, agent: [...thisProgram(), 'agent'], ...signals });
    return follow(run, plan, print, json === true, output);
  };
  const { checkpoint } = launch;
  if (checkpoint === undefined) return withInterrupt(output, async (signal) => void (await train({ signal })));
  return withStop(output, async (stopSignal) => tellStop(await train({ stopSignal }), checkpoint, output));
}

/** The exit code, and for a run that was stopped how it goes on. */
function tellStop({ isStopped, nextStep }: RunResult, folder: string, output: Output): number {
  if (!isStopped) return 0;
  output.err(`stopped before step ${nextStep}; the same command goes on with --checkpoint ${folder} --resume auto`);
  return STOPPED;
}

/** One without the other would trace nothing, or nowhere. */
function checkTrace({ traceSteps, traceFolder }: LaunchOptions): void {
  if ((traceSteps === undefined) === (traceFolder === undefined)) return;
  const [given, missing] = traceSteps === undefined ? ['folder', 'steps'] : ['steps', 'folder'];
  throw new FpdtError(`--trace-${given} needs --trace-${missing}`, {
    code: 'usage',
    hint: 'give both, e.g. --trace-steps 2 --trace-folder traces',
  });
}

async function follow(
  run: Run,
  plan: ExecutionPlan,
  print: (event: RunEvent) => void,
  asJson: boolean,
  output: Output,
): Promise<RunResult> {
  for await (const event of run) print(event);
  const result = await run.result;
  if (result.steps.length === 0) return result;
  const comparison = compareRun(plan, result);
  if (asJson) output.out(JSON.stringify({ type: 'comparison', comparison }));
  else output.out(['', comparisonToText(comparison), ...checkpointLines(result.checkpoints)].join('\n'));
  return result;
}

/** Telemetry is for programs; a person sees states, steps and what ranks print, as DeepSpeed's timers. */
function textPrinter(plan: ExecutionPlan, output: Output): (event: RunEvent) => void {
  return (event) => {
    if (event.type === 'step') output.out(progressLine(plan, event.step));
    else if (event.type === 'evaluation') output.out(evaluationLine(plan, event.evaluation));
    else if (event.type === 'ready')
      output.err(`${plan.cluster.numRanks} ranks ready in ${event.seconds.toFixed(1)} s, plan ${event.digest.slice(0, 12)}`);
    else if (event.type === 'checkpoint') output.err(checkpointLine(event.checkpoint));
    else if (event.type === 'restart') output.err(`${event.reason}\nthe ranks start again, ${event.number} of at most ${event.of} times`);
    else if (event.type === 'exported') output.err(`wrote ${event.folder}: ${event.numWeights} weights, ${formatBytes(event.bytes)}`);
    else if (event.type === 'log') output.err(event.rank === null ? event.line : `rank ${event.rank}: ${event.line}`);
  };
}

/** One JSON object a line; an error object of the last event becomes plain data. */
function jsonPrinter(output: Output): (event: RunEvent) => void {
  return (event) => {
    const isFailure = event.type === 'end' && !event.outcome.ok;
    output.out(JSON.stringify(isFailure ? { ...event, outcome: { ok: false, error: errorToJson(failureOf(event)) } } : event));
  };
}

function failureOf(event: RunEvent): unknown {
  return event.type === 'end' && !event.outcome.ok ? event.outcome.error : undefined;
}
