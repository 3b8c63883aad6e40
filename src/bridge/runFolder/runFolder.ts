/** The folder of a run: what was asked for, the plan, a line of metrics a step, and what each rank printed. */
import { lstatSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionPlan } from '../../plan/executionPlan.js';
import { writePlanFile } from '../../plan/file.js';
import { FpdtError } from '../../spec/errors.js';
import type { RunEvent } from '../events.js';
import { LineFile } from './lineFile.js';
import { type Loggers, type LoggersInput, openLoggers } from './loggers.js';
import { evaluationMetrics, lastStepOf, type Metrics, stepMetrics } from './metrics.js';
import { OpenLines } from './openLines.js';

/** What happens when a line cannot be written: the run goes on with a remark, or it stops. */
export const ON_UNWRITABLE = ['remark', 'stop'] as const;
export type OnUnwritable = (typeof ON_UNWRITABLE)[number];

export interface RunFolderInput {
  readonly path: string;
  readonly plan: ExecutionPlan;
  /** The resolved options of the run, JSON-safe. */
  readonly options: Readonly<Record<string, unknown>>;
  /** The folder may hold an earlier part of the same run. */
  readonly resumes: boolean;
  readonly onUnwritable: OnUnwritable;
  readonly version: string;
  /** Where metrics go beside their file. */
  readonly loggers?: Omit<LoggersInput, 'folder'> | undefined;
}

const CONFIG = 'config';
const PLAN = 'plan';
const METRICS = 'metrics.jsonl';

/** Throws FpdtError `run-folder-in-use`, `run-folder-not-a-folder`, `run-folder-unwritable`, `output-not-a-file`. */
export async function openRunFolder(input: RunFolderInput): Promise<RunFolder> {
  try {
    makeFolder(input.path);
    const part = partOf(input);
    const folder = new RunFolder(input);
    try {
      writeWhole(join(input.path, fileName(CONFIG, part)), `${JSON.stringify(configOf(input), null, 2)}\n`);
      await writePlanFile(input.plan, join(input.path, fileName(PLAN, part)));
      if (input.loggers !== undefined) folder.loggers = await openLoggers({ ...input.loggers, folder: input.path });
      return folder;
    } catch (error) {
      await folder.close();
      throw error;
    }
  } catch (cause) {
    if (cause instanceof FpdtError) throw cause;
    throw unwritable(input.path, cause);
  }
}

export class RunFolder {
  loggers: Loggers | undefined;
  readonly #input: RunFolderInput;
  readonly #metrics: OpenLines;
  readonly #logs: readonly OpenLines[];
  readonly #lastSteps: Record<Metrics['kind'], number>;

  constructor(input: RunFolderInput) {
    const { path, plan } = input;
    const open = (name: string): OpenLines => new OpenLines(new LineFile(join(path, name)), name);
    this.#input = input;
    this.#metrics = open(METRICS);
    const written = this.#metrics.text();
    this.#lastSteps = {
      stepMetrics: lastStepOf(written, 'stepMetrics'),
      evaluationMetrics: lastStepOf(written, 'evaluationMetrics'),
    };
    this.#logs = Array.from({ length: plan.cluster.numRanks }, (_, rank) => open(`rank-${rank}.log`));
  }

  /** Writes what is of use later; returns what there is to remark. Throws FpdtError `run-folder-unwritable` where that is to stop the run. */
  record(event: RunEvent): readonly string[] {
    if (event.type === 'log' && event.rank !== null) return this.#write(this.#logs[event.rank], event.line);
    const line = this.#metricsOf(event);
    if (line === undefined) return [];
    const text = JSON.stringify(line);
    this.loggers?.write(text);
    return this.#write(this.#metrics, text);
  }

  /** Nothing can be recorded afterwards. Returns what there is to remark. */
  async close(): Promise<readonly string[]> {
    const files = [this.#metrics, ...this.#logs].flatMap((file) => file.close());
    return [...files, ...((await this.loggers?.close()) ?? [])];
  }

  #metricsOf(event: RunEvent): Metrics | undefined {
    const time = new Date().toISOString();
    if (event.type === 'step') return stepMetrics(event.step, this.#input.plan.memory, time, this.#repeats('stepMetrics', event.step.step));
    if (event.type !== 'evaluation') return undefined;
    return evaluationMetrics(event.evaluation, time, this.#repeats('evaluationMetrics', event.evaluation.step));
  }

  #repeats(kind: Metrics['kind'], step: number): boolean {
    const last = this.#lastSteps[kind];
    this.#lastSteps[kind] = Math.max(last, step);
    return step <= last;
  }

  #write(file: OpenLines | undefined, line: string): readonly string[] {
    const { remarks, failure } = file?.write(line) ?? { remarks: [] };
    if (failure !== undefined && this.#input.onUnwritable === 'stop') throw unwritable(this.#input.path, failure);
    return remarks;
  }
}

function makeFolder(path: string): void {
  // Not where a link leads to: what is there would be another's.
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) mkdirSync(path, { recursive: true, mode: 0o755 });
  else if (!found.isDirectory())
    throw new FpdtError(`run folder: '${path}' is ${found.isSymbolicLink() ? 'a link' : 'no folder'}`, {
      code: 'run-folder-not-a-folder',
      hint: 'give a new folder for the run',
      details: { path },
    });
}

/** 1 for a run that begins here, more for one that goes on. */
function partOf({ path, resumes }: RunFolderInput): number {
  const isThere = (name: string): boolean => lstatSync(join(path, name), { throwIfNoEntry: false }) !== undefined;
  let part = 1;
  while (isThere(fileName(CONFIG, part)) || isThere(fileName(PLAN, part))) part += 1;
  if (!resumes && (part > 1 || isThere(METRICS)))
    throw new FpdtError(`run folder: '${path}' holds another run`, {
      code: 'run-folder-in-use',
      hint: 'give a new folder for the run, or go on with that run',
      details: { path },
    });
  return part;
}

/** `plan.json`, and `plan.2.json` of a run that goes on for the first time. */
function fileName(name: string, part: number): string {
  return part === 1 ? `${name}.json` : `${name}.${part}.json`;
}

function configOf({ plan, options, version }: RunFolderInput) {
  const { digest, model, cluster, run, strategy, deepspeed } = plan;
  return { kind: 'runConfig', version, time: new Date().toISOString(), digest, options, run, strategy, deepspeed, cluster, model };
}

/** A reader sees all of it or nothing. */
function writeWhole(path: string, text: string): void {
  const partial = `${path}.${process.pid}.partial`;
  try {
    writeFileSync(partial, text, { flag: 'wx' });
    renameSync(partial, path);
  } finally {
    rmSync(partial, { force: true });
  }
}

function unwritable(path: string, cause: unknown): FpdtError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new FpdtError(`run folder: cannot write to '${path}': ${reason}`, {
    code: 'run-folder-unwritable',
    hint: 'free some space, or give another folder for the run',
    details: { path },
    cause,
  });
}
