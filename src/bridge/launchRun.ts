/** Runs a plan on ranks of this host. */

import type * as z from 'zod';
import { VERSION } from '../package.js';
import { encodePlan } from '../plan/encode.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { describe } from '../spec/describe.js';
import { FpdtError } from '../spec/errors.js';
import { expected } from '../spec/expected.js';
import { valueIn } from '../spec/parseJson.js';
import { TYPE_WORDS } from '../spec/typeWords.js';
import { checkpointOptions } from './checkpointOptions.js';
import { chosenPath, dataOptions } from './dataOptions.js';
import type { LaunchOptions } from './launchOptions.js';
import { askParameterShapes, checkParameters } from './parameterShapes.js';
import { prepareAll } from './prepareData.js';
import { runOptionsSchema, type RunOptions } from './runOptions.js';
import { checkRanksFit, hostCapacity } from './hostCapacity.js';
import { hostsOf } from './hosts/hostsOptions.js';
import { checkLaunch } from './launchChecks.js';
import { resolvePython } from './python.js';
import { startWithRestarts } from './restarts.js';
import { startRun, type Run, type RunSetup } from './run.js';
import { folderOf } from './runFolder/folderOptions.js';
import { weightRemarks } from './weightRemarks.js';
import { WATCH_LIMITS } from './watchdog.js';
import type { WirePlan } from './wirePlan.js';

/** A step may take this many times its prediction before its rank counts as hung, and never less than the default. */
const STEP_PATIENCE = 100;

/**
 * Prepares the data where that is to be done, starts the ranks and returns; the run's events and `result` tell the rest.
 * Throws FpdtError when it cannot start: no Python, a changed plan, parameters that are not the model's, data that it cannot train on.
 */
export async function launchRun(plan: ExecutionPlan, options: LaunchOptions): Promise<Run> {
  const wire = toWirePlan(plan);
  const environment = options.environment ?? process.env;
  const runOptions = toRunOptions(options);
  const openHosts = hostsOf(plan, options, options.python, environment);
  // Other hosts say themselves what they take.
  if (openHosts === undefined) checkRanksFit(plan.cluster, hostCapacity(environment));
  checkLaunch(plan, options);
  const python = resolvePython(options.python);
  options.signal?.throwIfAborted();
  if (options.checkShapes === true) checkParameters(plan, await askParameterShapes(plan.model, { python }));
  // A worker of one's own reads data in its own way.
  const dataRemarks =
    options.worker === undefined
      ? await prepareAll(plan, runOptions, { ...options, python, environment, onLine: options.onPreparation })
      : [];
  const numSteps = options.steps ?? plan.run.numSteps;
  const folder = await folderOf(plan, options, python, { ...runOptions, numSteps });
  const setup: RunSetup = {
    plan: wire,
    options: runOptions,
    numSteps,
    folder,
    python,
    worker: options.worker ?? 'fpdt.worker',
    environment,
    packageVersion: VERSION,
    remarks: [...dataRemarks, ...(options.weights === undefined ? [] : weightRemarks(options.weights, plan.model.hfConfig))],
    limits: { ...WATCH_LIMITS, stepSeconds: stepLimit(plan), ...options.limits },
    openHosts,
    startSignal: startSignal(options),
  };
  const { restarts = 0 } = options;
  const run = await (restarts > 0 ? startWithRestarts(setup, restarts) : startRun(setup)).catch(async (error: unknown) => {
    await folder?.close();
    throw error;
  });
  if (options.signal !== undefined) onAbort(options.signal, run, run.abort);
  if (options.stopSignal !== undefined) onAbort(options.stopSignal, run, run.stop);
  return run;
}

function toWirePlan(plan: ExecutionPlan): WirePlan {
  const { header, prose, columns, digest } = encodePlan(plan);
  if (digest !== plan.digest) {
    throw new FpdtError(`the plan has digest ${digest}, but says ${plan.digest}`, {
      code: 'plan-changed',
      hint: 'plan again: the plan was changed after it was made',
      details: { expected: plan.digest, found: digest },
    });
  }
  return { digest, device: plan.cluster.device, numRanks: plan.cluster.numRanks, header, prose, columns };
}

function toRunOptions(options: LaunchOptions): RunOptions {
  const given = {
    data: options.data,
    dataOptions: dataOptions(options),
    weights: options.weights ?? null,
    export: options.export ?? null,
    dumpGrads: options.dumpGrads ?? null,
    copyMode: options.copyMode ?? null,
    poison: options.poison ?? false,
    seed: options.seed ?? null,
    diskFolder: options.diskFolder ?? null,
    diskDirect: options.diskDirect ?? null,
    recordLayers: options.recordLayers ?? 0,
    traceSteps: options.traceSteps ?? [],
    traceFolder: options.traceFolder ?? null,
    onNonFinite: options.onNonFinite ?? null,
    ...checkpointOptions(options),
    evaluation: evaluationOf(options),
  };
  for (const name of ['steps', 'restarts'] as const) {
    const count = options[name];
    if (count !== undefined && !(Number.isSafeInteger(count) && count >= 0))
      throw invalidOption([name], `${TYPE_WORDS.integer} >= 0`, count);
  }
  const { data, error } = runOptionsSchema.safeParse(given);
  if (data !== undefined) return data;
  const issue = error.issues[0] as z.core.$ZodIssue;
  throw invalidOption(chosenPath(issue.path), expected(issue), valueIn(given, issue.path));
}

function evaluationOf({ evalData, evalSequences, evalEvery }: LaunchOptions): RunOptions['evaluation'] {
  return evalData === undefined ? null : { data: evalData, sequences: evalSequences ?? null, every: evalEvery ?? null };
}

function invalidOption(path: readonly PropertyKey[], what: string, found: unknown): FpdtError {
  const [option] = path;
  return new FpdtError(`run option ${path.map(String).join('.')}: expected ${what}, found ${describe(found)}`, {
    code: 'invalid-option',
    hint: option === 'data' ? `give ${what}` : `give ${what}, or leave ${String(option)} out`,
    details: { option },
  });
}

/** Either of them: before there are ranks, there is nothing to save. */
function startSignal({ signal, stopSignal }: LaunchOptions): AbortSignal {
  return AbortSignal.any([signal, stopSignal].filter((one) => one !== undefined));
}

function stepLimit(plan: ExecutionPlan): number {
  return Math.max(WATCH_LIMITS.stepSeconds, STEP_PATIENCE * plan.prediction.stepSeconds);
}

function onAbort(signal: AbortSignal, run: Run, act: (reason: string) => void): void {
  const listener = (): void => act(describeReason(signal.reason));
  if (signal.aborted) listener();
  signal.addEventListener('abort', listener, { once: true });
  const forget = (): void => signal.removeEventListener('abort', listener);
  run.result.then(forget, forget);
}

function describeReason(reason: unknown): string {
  return reason instanceof Error ? reason.message : String(reason);
}
