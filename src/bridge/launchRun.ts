/** Runs a plan on ranks of this host. */

import { existsSync, readdirSync } from 'node:fs';
import type * as z from 'zod';
import { VERSION } from '../package.js';
import { encodePlan } from '../plan/encode.js';
import type { ExecutionPlan } from '../plan/executionPlan.js';
import { describe } from '../spec/describe.js';
import { FpdtError } from '../spec/errors.js';
import { expected } from '../spec/expected.js';
import { isFolder } from '../spec/jsonFile.js';
import { valueIn } from '../spec/parseJson.js';
import { TYPE_WORDS } from '../spec/typeWords.js';
import { type CheckpointChoices, checkpointOptions } from './checkpointOptions.js';
import { chosenPath, type DataChoices, dataOptions } from './dataOptions.js';
import { askParameterShapes, checkParameters } from './parameterShapes.js';
import { prepareAll } from './prepareData.js';
import { runOptionsSchema, type RunOptions } from './runOptions.js';
import { resolvePython } from './python.js';
import { startWithRestarts } from './restarts.js';
import { startRun, type Run, type RunSetup } from './run.js';
import { folderOf, type FolderOptions } from './runFolder/folderOptions.js';
import { weightRemarks } from './weightRemarks.js';
import { WATCH_LIMITS, type WatchLimits } from './watchdog.js';
import type { WirePlan } from './wirePlan.js';

export interface LaunchOptions extends DataChoices, CheckpointChoices, FolderOptions {
  /** What to read tokens from: a file or folder that docs/data.md knows. */
  readonly data: string;
  /** Hugging Face folder (config.json and safetensors) with the weights to start from; left out: those of the plan's seed. */
  readonly weights?: string | undefined;
  /** Folder, new or empty, that the trained model is written into as Hugging Face has it. */
  readonly export?: string | undefined;
  /** Folder for the gradients of every parameter after each step. */
  readonly dumpGrads?: string | undefined;
  /** When the CPU device runs asynchronous copies and exchanges; default eager. */
  readonly copyMode?: NonNullable<RunOptions['copyMode']> | undefined;
  /** Fill arenas and freed buffers with NaN, to find reads of what is no longer there. */
  readonly poison?: boolean | undefined;
  /** Of the order of `copyMode` random, and of when threads sleep. */
  readonly seed?: number | undefined;
  /** Folder for the files of file pools, on the disk the plan was made for; a plan without one needs none. */
  readonly diskFolder?: string | undefined;
  /** Files past the page cache, or never; left out: where the file system can. */
  readonly diskDirect?: boolean | undefined;
  /** Telemetry has the single ops of one decoder layer in so many; default 0: of none. */
  readonly recordLayers?: number | undefined;
  /** Optimizer steps to write a Chrome trace of; they take longer. */
  readonly traceSteps?: readonly number[] | undefined;
  /** Folder for these traces. */
  readonly traceFolder?: string | undefined;
  /** Held-out tokens, read as `data` is, for a plan that was made with `evaluate`. */
  readonly evalData?: string | undefined;
  /** Sequences of it that are evaluated, in whole rounds of the replicas; left out: all, each once. */
  readonly evalSequences?: number | undefined;
  /** Optimizer steps between two evaluations; left out: at the end alone. */
  readonly evalEvery?: number | undefined;
  /** Interpreter; default FPDT_PYTHON, else the environment that setup made. */
  readonly python?: string | undefined;
  /** Instead of the plan's number of steps. */
  readonly steps?: number | undefined;
  /** Python module of the worker. */
  readonly worker?: string | undefined;
  /** First ask transformers for the shapes of the model's parameters and compare them with the plan's. */
  readonly checkShapes?: boolean | undefined;
  /** Hears how far the data is prepared, before the ranks start. */
  readonly onPreparation?: ((line: string) => void) | undefined;
  /** What a NaN or an infinity in the loss or a gradient does, found before the update; left out: what DeepSpeed does at this ZeRO stage. */
  readonly onNonFinite?: NonNullable<RunOptions['onNonFinite']> | undefined;
  /** Aborts the run. */
  readonly signal?: AbortSignal | undefined;
  /** Ends the run after the step that runs, see Run.stop. */
  readonly stopSignal?: AbortSignal | undefined;
  /** Environment of the ranks in place of this process's own. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined;
  /** When a rank counts as hung. */
  readonly limits?: Partial<WatchLimits> | undefined;
}

/** A step may take this many times its prediction before its rank counts as hung, and never less than the default. */
const STEP_PATIENCE = 100;

/**
 * Prepares the data where that is to be done, starts the ranks and returns; the run's events and `result` tell the rest.
 * Throws FpdtError when it cannot start: no Python, a changed plan, parameters that are not the model's, data that it cannot train on.
 */
export async function launchRun(plan: ExecutionPlan, options: LaunchOptions): Promise<Run> {
  const wire = toWirePlan(plan);
  const python = resolvePython(options.python);
  const runOptions = toRunOptions(options);
  checkDiskFolder(plan, options);
  checkModelFolders(options);
  checkEvaluation(plan, options);
  options.signal?.throwIfAborted();
  if (options.checkShapes === true) checkParameters(plan, await askParameterShapes(plan.model, { python }));
  const environment = options.environment ?? process.env;
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

/** The other options of an evaluation say nothing without its data, and its data nothing without a program that evaluates. */
function checkEvaluation({ programs }: ExecutionPlan, { evalData, evalSequences, evalEvery }: LaunchOptions): void {
  if (evalData === undefined) {
    const given = evalEvery === undefined ? (evalSequences === undefined ? undefined : 'evalSequences') : 'evalEvery';
    if (given === undefined) return;
    throw new FpdtError(`${given} is given, but there is no data to evaluate`, {
      code: 'evaluation-data-missing',
      hint: 'give the held-out tokens with --eval-data',
    });
  }
  if (programs.evaluate !== undefined) return;
  throw new FpdtError('there is data to evaluate, but the plan has no program that evaluates', {
    code: 'plan-without-evaluation',
    hint: 'plan with --evaluate',
  });
}

function invalidOption(path: readonly PropertyKey[], what: string, found: unknown): FpdtError {
  const [option] = path;
  return new FpdtError(`run option ${path.map(String).join('.')}: expected ${what}, found ${describe(found)}`, {
    code: 'invalid-option',
    hint: option === 'data' ? `give ${what}` : `give ${what}, or leave ${String(option)} out`,
    details: { option },
  });
}

/** The ranks would refuse it too, after half a minute of imports. */
function checkDiskFolder({ pools }: ExecutionPlan, { diskFolder }: LaunchOptions): void {
  const used = pools.find(({ kind, bytes }) => kind === 'file' && bytes > 0);
  if (used === undefined || diskFolder !== undefined) return;
  throw new FpdtError(`the plan keeps ${used.bytes} bytes a rank in the file pool ${used.name}, but there is no diskFolder`, {
    code: 'disk-folder-missing',
    hint: 'give --disk-folder, a folder on the disk that the plan is for',
    details: { pool: used.name, bytes: used.bytes },
  });
}

/** What is in them is for the ranks to say. */
function checkModelFolders({ weights, export: target }: LaunchOptions): void {
  if (weights !== undefined && !isFolder(weights)) {
    throw new FpdtError(`weights: there is no folder '${weights}'`, {
      code: 'weights-missing',
      hint: 'give a Hugging Face folder with config.json and safetensors',
    });
  }
  if (target !== undefined && existsSync(target) && (!isFolder(target) || readdirSync(target).length > 0)) {
    throw new FpdtError(`export: '${target}' is there and not empty`, { code: 'export-in-use', hint: 'give a new folder for the export' });
  }
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
