/** A process that takes metrics to TensorBoard, Weights & Biases and MLflow: python/fpdt/loggers.py. Nothing waits for it but the end. */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { FpdtError } from '../../spec/errors.js';
import { isObject } from '../../spec/parseJson.js';
import { forgetGroup, killAtExit, signalGroup } from '../processGroup.js';
import { PYTHON_FOLDER } from '../python.js';
import type { Environment } from '../rankEnvironment.js';
import { LineFile } from './lineFile.js';
import { OpenLines } from './openLines.js';

export const LOGGERS = ['tensorboard', 'wandb', 'mlflow'] as const;
export type LoggerName = (typeof LOGGERS)[number];

export interface LoggersInput {
  readonly names: readonly LoggerName[];
  /** Of the run; its config.json is there. */
  readonly folder: string;
  readonly python: string;
  readonly environment: Environment;
}

/** A little more than the process gives its loggers to send what is left. */
const CLOSE_MS = 40_000;
const LOG = 'loggers.log';

type Child = ReturnType<typeof spawn>;

/** Throws FpdtError `logger-not-started` for one that is not installed, with the command that installs it. */
export async function openLoggers(input: LoggersInput): Promise<Loggers> {
  const log = new OpenLines(new LineFile(join(input.folder, LOG)), LOG);
  const child = spawn(input);
  void keepLines(child, log);
  if (child.pid !== undefined) killAtExit(child.pid);
  const exited = new Promise<unknown>((resolve) => {
    child.once('exit', resolve);
    // One that cannot be started has no exit.
    child.once('error', (error) => resolve(error.message));
  });
  const answer = await Promise.race([firstLine(child), exited.then((code) => (typeof code === 'string' ? code : NEVER))]);
  if (answer.startsWith('{"ready"')) return new Loggers(child, exited);
  if (child.pid !== undefined) forgetGroup(child.pid);
  throw notStarted(answer, input);
}

const NEVER = new Promise<string>(() => undefined);

function spawn({ names, folder, python, environment }: LoggersInput) {
  return execa(python, ['-m', 'fpdt.loggers', '--folder', folder, ...names], {
    detached: true, // Its own group, as ranks have: Ctrl-C reaches only the controller.
    buffer: false,
    reject: false,
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
    env: { ...environment, PYTHONPATH: [PYTHON_FOLDER, environment.PYTHONPATH].filter(Boolean).join(':'), PYTHONUNBUFFERED: '1' },
    extendEnv: false,
  });
}

/** What loggers print is of use only where one fails: no remark is made of a line that cannot be written. */
async function keepLines({ stderr }: Child, log: OpenLines): Promise<void> {
  for await (const line of createInterface({ input: stderr })) log.write(line);
  log.close();
}

async function firstLine({ stdout }: Child): Promise<string> {
  for await (const line of createInterface({ input: stdout })) return line;
  return '';
}

function notStarted(answer: string, { names, folder }: LoggersInput): FpdtError {
  const { message, hint } = problemOf(answer);
  return new FpdtError(`loggers: ${message ?? `${names.join(', ')} did not start; ${join(folder, LOG)} says why`}`, {
    code: 'logger-not-started',
    hint: hint ?? 'run without --log',
    details: { names },
  });
}

function problemOf(answer: string): { readonly message?: string; readonly hint?: string } {
  try {
    const value: unknown = JSON.parse(answer);
    const error = isObject(value) ? value['error'] : undefined;
    return isObject(error) ? { message: String(error['message']), hint: String(error['hint']) } : {};
  } catch {
    return answer === '' ? {} : { message: answer };
  }
}

export class Loggers {
  readonly #child: Child;
  readonly #exited: Promise<unknown>;
  #isGone = false;

  constructor(child: Child, exited: Promise<unknown>) {
    this.#child = child;
    this.#exited = exited;
    void exited.then(() => (this.#isGone = true));
    // A pipe whose reader is gone says so here as well.
    child.stdin.on('error', () => (this.#isGone = true));
  }

  /** A line of metrics. It may lie in memory until the process reads it. */
  write(line: string): void {
    if (!this.#isGone) this.#child.stdin.write(`${line}\n`);
  }

  /** Waits until all is logged, or long enough. Returns what there is to remark. */
  async close(): Promise<readonly string[]> {
    const { pid } = this.#child;
    if (!this.#isGone) this.#child.stdin.end();
    const patience = new AbortController();
    const tooLong = sleep(CLOSE_MS, 'late', { signal: patience.signal }).catch(() => 'late');
    const code = await Promise.race([this.#exited, tooLong]);
    patience.abort();
    if (pid !== undefined) {
      if (code === 'late') signalGroup(pid, 'SIGKILL');
      forgetGroup(pid);
    }
    return code === 0 ? [] : [`some metrics may not have reached their loggers: ${LOG} says why`];
  }
}
