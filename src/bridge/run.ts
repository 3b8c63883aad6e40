/** One run: its ranks, its sockets, its events, and one end for all of them, whatever happens. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { FpdtError } from '../spec/errors.js';
import { Controller } from './controller.js';
import { Coordinator } from './coordinator.js';
import { remark } from './coordinatorHost.js';
import { EventQueue, type RunEvent, type RunOutcome } from './events.js';
import { describeExit, SETTLE_MS, toError, type Failure } from './failure.js';
import { openLocalHost } from './hosts/localHost.js';
import type { OpenHosts, RankHosts } from './hosts/rankHosts.js';
import type { Body, Message, MessageType } from './protocol.js';
import type { RunOptions } from './runOptions.js';
import type { Environment } from './rankEnvironment.js';
import type { RankExit, RankProcess } from './ranks.js';
import { mergeSteps, type RunResult, type StartFacts } from './runResult.js';
import type { RunFolder } from './runFolder/runFolder.js';
import { Watchdog, type WatchLimits } from './watchdog.js';
import type { WirePlan } from './wirePlan.js';

/** Everything a run needs, resolved. */
export interface RunSetup {
  readonly plan: WirePlan;
  readonly options: RunOptions;
  readonly numSteps: number;
  readonly python: string;
  /** Python module of the worker. */
  readonly worker: string;
  readonly environment: Environment;
  readonly packageVersion: string;
  /** For whoever listens, before anything else. */
  readonly remarks: readonly string[];
  /** Of a run that goes on after a death: evaluations that are still to be made; left out: none. */
  readonly lacksEvaluation?: (step: number) => boolean;
  /** Where events are recorded; closed when the run has ended. */
  readonly folder?: Pick<RunFolder, 'record' | 'close'> | undefined;
  readonly limits: WatchLimits;
  /** Where the ranks are; left out: on this host. */
  readonly openHosts?: OpenHosts | undefined;
  /** Ends the start of ranks, before there is a run to abort. */
  readonly startSignal?: AbortSignal | undefined;
}

/** A run in progress. Iterate it for its events (one listener); it ends with `end`, and throws when the run failed. */
export interface Run extends AsyncIterable<RunEvent> {
  readonly id: string;
  /** Rejects with an FpdtError when the run failed or was aborted; by then no process of it is left. */
  readonly result: Promise<RunResult>;
  /** Process ids of the ranks, each also the id of a process group of its host. */
  readonly pids: readonly number[];
  readonly abort: (reason: string) => void;
  /** Ends the run after the step that runs: with a checkpoint, where it has a folder for them. Before the first step it aborts. */
  readonly stop: (reason: string) => void;
}

const EXIT_AFTER_BYE_MS = 10_000;
const BYE_AFTER_EXIT_MS = 5000;
const BYE_POLL_MS = 50;

export async function startRun(setup: RunSetup): Promise<Run> {
  const run = new ActiveRun(setup);
  await run.start();
  return run;
}

class ActiveRun implements Run {
  readonly id = randomUUID();
  readonly result: Promise<RunResult>;
  readonly #setup: RunSetup;
  readonly #events = new EventQueue();
  readonly #failures: Failure[] = [];
  readonly #coordinator: Coordinator;
  readonly #startedMs = performance.now();
  readonly #controller: Controller;
  #hosts: RankHosts | null = null;
  #watchdog: Watchdog | null = null;
  #isEnding = false;
  #loadSeconds = 0;
  #start: StartFacts = { versions: {}, kernels: {}, loadPoolBytes: {}, communicatorBytes: null };
  #settle: (outcome: RunOutcome) => void = () => undefined;

  constructor(setup: RunSetup) {
    this.#setup = setup;
    this.result = new Promise((resolve, reject) => {
      this.#settle = (outcome) => (outcome.ok ? resolve(outcome.result) : reject(outcome.error));
    });
    // A listener may only iterate; the iteration throws the same error.
    this.result.catch(() => undefined);
    this.#controller = new Controller(this.id, {
      onMessage: (rank, message) => this.#onMessage(rank, message),
      onBatch: (batch) => this.#emit({ type: 'telemetry', rank: batch.rank, batch }),
      onRemark: (line) => this.#emit(remark(line)),
      onBroken: (rank, reason) => this.#fail({ kind: 'protocol', ...this.#placeOf(rank), reason }),
      onCrash: (cause) => this.#fail({ kind: 'internal', cause }),
    });
    this.#coordinator = new Coordinator(setup.plan, setup.options, setup.numSteps, setup.packageVersion, {
      send: (rank, type, body, frames) => this.#send(rank, type, body, frames),
      emit: (event) => this.#emit(event),
      onReady: (facts) => this.#onReady(facts),
      fail: (failure) => this.#fail(failure),
      lacksEvaluation: (step) => setup.lacksEvaluation?.(step) ?? false,
      complete: () => this.#end(),
    });
  }

  get #ranks(): readonly RankProcess[] {
    return this.#hosts?.ranks ?? [];
  }

  get pids(): readonly number[] {
    return this.#ranks.flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  readonly abort = (reason: string): void => this.#fail({ kind: 'abort', reason });

  readonly stop = (reason: string): void => {
    if (!this.#coordinator.stop(reason)) this.abort(reason);
  };

  [Symbol.asyncIterator](): AsyncIterator<RunEvent> {
    return this.#events;
  }

  async start(): Promise<void> {
    for (const line of this.#setup.remarks) this.#emit(remark(line));
    const { plan, python, worker, environment, openHosts = openLocalHost, startSignal: signal } = this.#setup;
    const setup = { run: this.id, numRanks: plan.numRanks, device: plan.device, python, worker, environment, signal };
    const { onControl, onTelemetry, onCrash } = this.#controller;
    this.#hosts = await openHosts(setup, {
      ...{ onControl, onTelemetry, onCrash },
      onLine: (rank, stream, line) => this.#emit({ type: 'log', rank, stream, line }),
      onRemark: (line) => this.#emit(remark(line)),
      onHostLost: (host, reason, hint) => this.#fail({ kind: 'hostLost', host, reason, hint }),
    });
    this.#controller.attach(this.#hosts.link);
    for (const one of this.#hosts.ranks) this.#watchExit(one);
    this.#watchdog = new Watchdog(plan.numRanks, this.#setup.limits, {
      ping: (rank, stacks) => this.#send(rank, 'ping', { stacks }),
      hang: (rank, reason) => this.#fail({ kind: 'hang', ...this.#placeOf(rank), reason }),
      stateOf: (rank) => this.#stateOf(rank),
    });
  }

  #watchExit(process: RankProcess): void {
    this.#emit({ type: 'rank', rank: process.rank, state: 'started', detail: startDetail(process) });
    void process.exited.then((exit) => this.#onExit(process, describeExit(exit)));
  }

  #onMessage(rank: number, message: Message): void {
    this.#watchdog?.heard(rank);
    if (message.type === 'pong') this.#watchdog?.pong(rank, message.body);
    this.#coordinator.receive(rank, message);
  }

  #onReady(facts: StartFacts): void {
    this.#start = facts;
    this.#loadSeconds = (performance.now() - this.#startedMs) / 1000;
    this.#emit({ type: 'ready', digest: this.#setup.plan.digest, seconds: this.#loadSeconds, ...facts });
  }

  #onExit(process: RankProcess, detail: string): void {
    this.#emit({ type: 'rank', rank: process.rank, state: 'exited', detail });
    const exit = process.exit();
    if (exit === null || this.#coordinator.hasLeft(process.rank)) return;
    const place = this.#placeOf(process.rank);
    if (exit.code === 0 && place.phase === 'closing') void this.#awaitBye(process.rank, exit);
    else this.#fail({ kind: 'exit', ...place, exit });
  }

  /** The exit of a rank that left in order may be seen before its bye, which is in the socket then. Sockets are read between polls. */
  async #awaitBye(rank: number, exit: RankExit): Promise<void> {
    for (let waitedMs = 0; waitedMs < BYE_AFTER_EXIT_MS; waitedMs += BYE_POLL_MS) {
      await sleep(BYE_POLL_MS, undefined, { ref: false });
      if (this.#coordinator.hasLeft(rank)) return;
    }
    this.#fail({ kind: 'exit', ...this.#placeOf(rank), exit });
  }

  #send<T extends MessageType>(rank: number, type: T, body: Body<T>, frames: readonly Uint8Array[] = []): void {
    if (!this.#isEnding) this.#controller.send(rank, type, body, frames);
  }

  #fail(failure: Failure): void {
    if (this.#isEnding) return;
    this.#failures.push(failure);
    if (this.#failures.length > 1) return;
    const settleMs = failure.kind === 'abort' ? 0 : SETTLE_MS;
    void sleep(settleMs).then(() => this.#end());
  }

  /** The only way out, taken once: stop everything, then tell. */
  #end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#watchdog?.stop();
    void this.#stop()
      .then(
        () => this.#outcome(),
        (error: unknown): RunOutcome => ({ ok: false, error: asFpdtError(error) }),
      )
      .then(async (outcome) => {
        for (const line of (await this.#setup.folder?.close()) ?? []) this.#events.push(remark(line));
        this.#tell(outcome);
      });
  }

  async #stop(): Promise<void> {
    const hasFailed = this.#failures.length > 0;
    try {
      if (!hasFailed) await this.#awaitExits();
      await this.#hosts?.stop(() => this.#askToAbort());
      await this.#controller.drain();
      // The last lines of the ranks; nothing holds their pipes open any more.
      await Promise.all(this.#ranks.map((one) => one.closed));
    } finally {
      await this.#controller.close();
    }
  }

  /** After bye a rank leaves by itself; one that does not is stopped like any other. */
  async #awaitExits(): Promise<void> {
    const patience = new AbortController();
    const exits = Promise.all(this.#ranks.map((one) => one.exited)).then(() => patience.abort());
    await Promise.race([exits, sleep(EXIT_AFTER_BYE_MS, undefined, { signal: patience.signal }).catch(ignoreAbort)]);
  }

  #askToAbort(): boolean {
    const alive = this.#ranks.filter((one) => one.exit() === null && this.#coordinator.isConnected(one.rank));
    for (const { rank } of alive) this.#controller.send(rank, 'abort', { reason: 'the run has ended' });
    return alive.length > 0;
  }

  #outcome(): RunOutcome {
    if (this.#failures.length > 0) {
      return { ok: false, error: toError(this.#placedFailures(), (rank) => this.#ranks[rank]?.stderrTail() ?? '') };
    }
    const { plan } = this.#setup;
    const facts = {
      digest: plan.digest,
      numRanks: plan.numRanks,
      loadSeconds: this.#loadSeconds,
      nextStep: this.#coordinator.nextStep,
      isStopped: this.#coordinator.isStopped,
      checkpoints: this.#coordinator.checkpoints.results,
      ...this.#start,
    };
    return { ok: true, result: mergeSteps(this.#coordinator.steps, this.#coordinator.evaluations.results, facts) };
  }

  /** Where a rank was when it ended is known best when its last messages have been read. */
  #placedFailures(): Failure[] {
    return this.#failures.map((one) => (one.kind === 'exit' ? { ...one, ...this.#placeOf(one.rank) } : one));
  }

  #emit(event: Exclude<RunEvent, { type: 'end' }>): void {
    this.#events.push(event);
    try {
      for (const line of this.#setup.folder?.record(event) ?? []) this.#events.push(remark(line));
    } catch (error) {
      this.#fail({ kind: 'output', error: asFpdtError(error) });
    }
  }

  #tell(outcome: RunOutcome): void {
    this.#events.close(outcome);
    this.#settle(outcome);
  }

  #placeOf(rank: number): ReturnType<Coordinator['placeOf']> {
    return rank < this.#setup.plan.numRanks ? this.#coordinator.placeOf(rank) : { rank, phase: 'starting', step: null };
  }

  #stateOf(rank: number): 'starting' | 'connected' | 'gone' {
    const isGone = this.#coordinator.hasLeft(rank) || this.#ranks[rank]?.exit() !== null;
    if (isGone) return 'gone';
    return this.#coordinator.isConnected(rank) ? 'connected' : 'starting';
  }
}

function startDetail({ pid, host }: RankProcess): string {
  return `pid ${pid ?? 'none'}${host === undefined ? '' : ` on ${host}`}`;
}

function ignoreAbort(error: unknown): void {
  if ((error as Error).name !== 'AbortError') throw error;
}

function asFpdtError(error: unknown): FpdtError {
  if (error instanceof FpdtError) return error;
  return new FpdtError(`the run could not be stopped: ${String(error)}`, { code: 'bridge-failed', cause: error });
}
