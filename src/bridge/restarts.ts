/** A run whose ranks are started again when they die, from the newest checkpoint, as often as a budget allows. */

import type { FpdtError } from '../spec/errors.js';
import { afterDeath } from './checkpointOptions.js';
import type { CheckpointResult } from './checkpointing.js';
import { remark } from './coordinatorHost.js';
import type { EvaluationResult } from './evaluations.js';
import { EventQueue, type RunEvent, type RunOutcome } from './events.js';
import { isOfProcesses } from './failure.js';
import { startRun, type Run, type RunSetup } from './run.js';
import { mergeSteps, type RunResult, type StepResult } from './runResult.js';

/** One run for whoever listens: its events are those of all its lives, its result has each step once. */
export async function startWithRestarts(setup: RunSetup, numRestarts: number): Promise<Run> {
  const run = new RestartingRun(setup, numRestarts);
  await run.start();
  return run;
}

class RestartingRun implements Run {
  readonly result: Promise<RunResult>;
  readonly #setup: RunSetup;
  readonly #folder: RunSetup['folder'];
  readonly #numRestarts: number;
  readonly #events = new EventQueue();
  readonly #steps = new Map<number, StepResult>();
  readonly #evaluations = new Map<number, EvaluationResult>();
  readonly #checkpoints: CheckpointResult[] = [];
  #current: Run | null = null;
  #numUsed = 0;
  #isLeaving = false;
  #settle: (outcome: RunOutcome) => void = () => undefined;

  constructor(setup: RunSetup, numRestarts: number) {
    this.#setup = { ...setup, folder: keptOpen(setup.folder), lacksEvaluation: (step) => this.#lacksEvaluation(step) };
    this.#folder = setup.folder;
    this.#numRestarts = numRestarts;
    this.result = new Promise((resolve, reject) => {
      this.#settle = (outcome) => (outcome.ok ? resolve(outcome.result) : reject(outcome.error));
    });
    // A listener may only iterate; the iteration throws the same error.
    this.result.catch(() => undefined);
  }

  /** Of the life that is now. */
  get id(): string {
    return this.#current?.id ?? '';
  }

  get pids(): readonly number[] {
    return this.#current?.pids ?? [];
  }

  readonly abort = (reason: string): void => {
    this.#isLeaving = true;
    this.#current?.abort(reason);
  };

  readonly stop = (reason: string): void => {
    this.#isLeaving = true;
    this.#current?.stop(reason);
  };

  [Symbol.asyncIterator](): AsyncIterator<RunEvent> {
    return this.#events;
  }

  async start(): Promise<void> {
    const first = await startRun(this.#setup);
    this.#current = first;
    void this.#live(first).then(async (outcome) => {
      for (const line of (await this.#folder?.close()) ?? []) this.#events.push(remark(line));
      this.#events.close(outcome);
      this.#settle(outcome);
    });
  }

  async #live(first: Run): Promise<RunOutcome> {
    for (let run = first; ; ) {
      const outcome = await this.#follow(run);
      if (outcome.ok) return { ok: true, result: this.#merge(outcome.result) };
      if (!this.#mayRestart(outcome.error)) return outcome;
      this.#numUsed += 1;
      this.#events.push({ type: 'restart', number: this.#numUsed, of: this.#numRestarts, reason: outcome.error.message });
      const again = await this.#startAgain();
      if ('error' in again) return { ok: false, error: again.error };
      run = again.run;
    }
  }

  async #startAgain(): Promise<{ readonly run: Run } | { readonly error: FpdtError }> {
    try {
      const run = await startRun({ ...this.#setup, options: afterDeath(this.#setup.options), remarks: [] });
      this.#current = run;
      if (this.#isLeaving) run.abort('interrupted');
      return { run };
    } catch (error) {
      return { error: error as FpdtError };
    }
  }

  /** Until its end, with all before it said here too. */
  async #follow(run: Run): Promise<RunOutcome> {
    const events = run[Symbol.asyncIterator]();
    for (;;) {
      const { value } = await events.next();
      if (value === undefined) throw new RangeError('a run ended without an end');
      const event: RunEvent = value;
      if (event.type === 'end') return event.outcome;
      if (event.type === 'step') this.#steps.set(event.step.step, event.step);
      if (event.type === 'evaluation') this.#evaluations.set(event.evaluation.step, event.evaluation);
      if (event.type === 'checkpoint') this.#checkpoints.push(event.checkpoint);
      this.#events.push(event);
    }
  }

  /** What a rank said last can be lost with it, though a checkpoint has the step. */
  #lacksEvaluation(step: number): boolean {
    return this.#steps.has(step - 1) && !this.#evaluations.has(step);
  }

  #mayRestart(error: FpdtError): boolean {
    return !this.#isLeaving && this.#numUsed < this.#numRestarts && isOfProcesses(error);
  }

  /** Steps that were lost with a rank and run again count as they were run last. */
  #merge(last: RunResult): RunResult {
    const steps = [...this.#steps.values()].sort((a, b) => a.step - b.step);
    const evaluations = [...this.#evaluations.values()].sort((a, b) => a.step - b.step);
    return { ...mergeSteps(steps, evaluations, last), checkpoints: this.#checkpoints };
  }
}

/** A life ends, and the next one writes on. */
function keptOpen(folder: RunSetup['folder']): RunSetup['folder'] {
  return folder && { record: (event) => folder.record(event), close: () => Promise.resolve([]) };
}
