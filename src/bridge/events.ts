/** What a run says while it runs, and the queue between the run and whoever listens. */

import type { FpdtError } from '../spec/errors.js';
import type { CheckpointResult } from './checkpointing.js';
import type { EvaluationResult } from './evaluations.js';
import type { StepDone } from './protocol.js';
import type { LogStream } from './ranks.js';
import type { RunResult, StartFacts, StepResult } from './runResult.js';
import type { TelemetryBatch } from './telemetryBatch.js';

export type RankState = 'started' | 'hello' | 'planAccepted' | 'ready' | 'bye' | 'exited';

export type RunEvent =
  | { readonly type: 'rank'; readonly rank: number; readonly state: RankState; readonly detail: string }
  /** All ranks hold the plan with the same digest. */
  | ({ readonly type: 'ready'; readonly digest: string; readonly seconds: number } & StartFacts)
  /** All ranks finished the step; `ranks` is what each of them measured. */
  | { readonly type: 'step'; readonly step: StepResult; readonly ranks: readonly StepDone[] }
  /** The training state before a step is in a folder, or there was a problem. */
  | { readonly type: 'checkpoint'; readonly checkpoint: CheckpointResult }
  /** Ranks died of `reason` and are started again, from the newest checkpoint: the `number`th time of at most `of`. */
  | { readonly type: 'restart'; readonly number: number; readonly of: number; readonly reason: string }
  /** All ranks have evaluated the held-out data. */
  | { readonly type: 'evaluation'; readonly evaluation: EvaluationResult }
  /** The trained model is in a Hugging Face folder. */
  | { readonly type: 'exported'; readonly folder: string; readonly numWeights: number; readonly bytes: number; readonly seconds: number }
  | { readonly type: 'telemetry'; readonly rank: number; readonly batch: TelemetryBatch }
  /** A line of a rank's output, or a remark of the controller (rank null). */
  | { readonly type: 'log'; readonly rank: number | null; readonly stream: LogStream; readonly line: string }
  /** Always the last. `numDroppedEvents` counts telemetry and log events that a slow listener did not get. */
  | { readonly type: 'end'; readonly outcome: RunOutcome; readonly numDroppedEvents: number };

export type RunOutcome = { readonly ok: true; readonly result: RunResult } | { readonly ok: false; readonly error: FpdtError };

const MAX_LOSSY_EVENTS = 4096;

/**
 * One listener's queue. A slow listener never holds up the run: beyond a limit telemetry and log events are dropped
 * and counted, all others are kept.
 */
export class EventQueue implements AsyncIterableIterator<RunEvent> {
  readonly #events: RunEvent[] = [];
  readonly #maxLossy: number;
  #numLossy = 0;
  #numDropped = 0;
  #isClosed = false;
  #failure: FpdtError | null = null;
  #wake: (() => void) | null = null;

  constructor(maxLossy: number = MAX_LOSSY_EVENTS) {
    this.#maxLossy = maxLossy;
  }

  push(event: Exclude<RunEvent, { type: 'end' }>): void {
    if (this.#isClosed) return;
    if (isLossy(event) && this.#numLossy >= this.#maxLossy) this.#numDropped += 1;
    else this.#enqueue(event);
  }

  /** Ends the iteration after what is queued; that of a failed run throws its error after the `end` event. */
  close(outcome: RunOutcome): void {
    if (this.#isClosed) return;
    this.#enqueue({ type: 'end', outcome, numDroppedEvents: this.#numDropped });
    this.#isClosed = true;
    if (!outcome.ok) this.#failure = outcome.error;
  }

  async next(): Promise<IteratorResult<RunEvent, undefined>> {
    while (this.#events.length === 0 && !this.#isClosed) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const event = this.#events.shift();
    if (event === undefined) return this.#done();
    if (isLossy(event)) this.#numLossy -= 1;
    return { done: false, value: event };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #done(): IteratorResult<RunEvent, undefined> {
    const failure = this.#failure;
    this.#failure = null;
    if (failure !== null) throw failure;
    return { done: true, value: undefined };
  }

  #enqueue(event: RunEvent): void {
    this.#events.push(event);
    if (isLossy(event)) this.#numLossy += 1;
    this.#wake?.();
    this.#wake = null;
  }
}

function isLossy(event: RunEvent): boolean {
  return event.type === 'telemetry' || event.type === 'log';
}
