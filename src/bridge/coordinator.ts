/** The course of a run over all ranks: hello, plan, ready, steps, evaluations and checkpoints, export, shutdown. No clock, no sockets, no processes. */

import { Checkpointing } from './checkpointing.js';
import { Evaluations } from './evaluations.js';
import type { Body, Evaluated, Message, MessageType, Phase, StepDone } from './protocol.js';
import type { RunOptions } from './runOptions.js';
import { type Host, type RankView, otherVersion, remark } from './coordinatorHost.js';
import { mergeRanks, mergeReadies, type StepResult } from './runResult.js';
import { planFrames, type WirePlan } from './wirePlan.js';

/** Steps sent ahead, so that no rank waits for the controller between two steps. */
const STEPS_IN_FLIGHT = 2;

/** The rank that writes an exported model; the others give it their shards. */
const WRITER = 0;

export class Coordinator {
  readonly steps: StepResult[] = [];
  readonly checkpoints: Checkpointing;
  readonly evaluations: Evaluations;
  readonly #plan: WirePlan;
  readonly #options: RunOptions;
  readonly #numSteps: number;
  readonly #packageVersion: string;
  readonly #host: Host;
  readonly #ranks: RankView[];
  readonly #readies: Body<'ready'>[] = [];
  readonly #pending = new Map<number, StepDone[]>();
  /** Above 0 where the ranks go on from a checkpoint. */
  #firstStep = 0;
  /** The next step to send. */
  #nextSent = 0;
  #isStopping = false;
  /** Fewer than the plan's where the run was stopped. */
  #endStep: number;
  #isFinishing = false;

  constructor(plan: WirePlan, options: RunOptions, numSteps: number, packageVersion: string, host: Host) {
    this.#plan = plan;
    this.#options = options;
    this.#numSteps = numSteps;
    this.#endStep = numSteps;
    this.checkpoints = new Checkpointing(options.checkpoint, plan.numRanks);
    this.#packageVersion = packageVersion;
    this.#host = host;
    this.evaluations = new Evaluations(options.evaluation, numSteps, plan.numRanks);
    this.#ranks = Array.from({ length: plan.numRanks }, () => ({ state: 'started', numStepsDone: 0, exported: null, stoppedBefore: null }));
  }

  /** The first step that has not been run. */
  get nextStep(): number {
    return this.#firstStep + this.steps.length;
  }

  /** Whether the run ends before its last step because `stop` asked it to. */
  get isStopped(): boolean {
    return this.#isStopping && this.#endStep < this.#numSteps;
  }

  /** Asks the ranks to begin no other step, save their state and leave. False where they are not training: then there is nothing to save. */
  stop(reason: string): boolean {
    if (this.#ranks.some((one) => one.state !== 'ready') || this.#isFinishing) return this.#isFinishing;
    if (!this.#isStopping) this.#toAll('stop', { reason });
    this.#isStopping = true;
    return true;
  }

  isConnected(rank: number): boolean {
    return (this.#ranks[rank]?.state ?? 'started') !== 'started';
  }

  hasLeft(rank: number): boolean {
    return this.#ranks[rank]?.state === 'bye';
  }

  /** What the rank does as far as the controller knows. */
  placeOf(rank: number): { readonly rank: number; readonly phase: Phase; readonly step: number | null } {
    const view = this.#view(rank);
    if (view.state === 'started') return { rank, phase: 'starting', step: null };
    if (view.state === 'hello' || view.state === 'planAccepted') return { rank, phase: 'loading', step: null };
    if (view.state !== 'ready' || this.#isOver()) return { rank, phase: 'closing', step: null };
    if ((this.evaluations.due(rank) ?? Number.POSITIVE_INFINITY) <= this.#firstStep + view.numStepsDone)
      return { rank, phase: 'evaluating', step: null };
    if (this.#areStepsDone()) {
      if (!this.evaluations.areDone) return { rank, phase: 'waiting', step: null };
      return { rank, phase: this.#isSaved() ? 'exporting' : 'saving', step: null };
    }
    const next = this.#firstStep + view.numStepsDone;
    const isStepping = next < this.#nextSent;
    return { rank, phase: isStepping ? 'stepping' : 'waiting', step: isStepping ? next : null };
  }

  receive(rank: number, message: Message): void {
    if (rank >= this.#ranks.length) this.#host.emit(remark(`ignored a message of rank ${rank}`));
    else if (message.type === 'hello') this.#greet(rank, message.body);
    else if (message.type === 'planAccepted') this.#accept(rank, message.body.digest);
    else if (message.type === 'ready') this.#ready(rank, message.body);
    else if (message.type === 'stepDone') this.#stepDone(rank, message.body);
    else if (message.type === 'checkpointed') this.#checkpointed(rank, message.body);
    else if (message.type === 'stopped') this.#stopped(rank, message.body.nextStep);
    else if (message.type === 'evaluated') this.#evaluated(rank, message.body);
    else if (message.type === 'exported') this.#exported(rank, message.body);
    else if (message.type === 'bye') this.#bye(rank, message.body.numSteps);
    else if (message.type === 'error') this.#reportError(rank, message.body);
    else if (message.type !== 'pong') this.#violation(rank, `sent ${message.type}, which only a controller sends`);
  }

  #greet(rank: number, hello: Body<'hello'>): void {
    if (!this.#advance(rank, 'started', 'hello', `pid ${hello.pid}, Python ${hello.python}`)) return;
    const other = otherVersion(hello, this.#packageVersion);
    if (other === undefined) this.#sendPlan(rank);
    else this.#violation(rank, other, 'install the npm and the Python package in the same version');
  }

  #sendPlan(rank: number): void {
    const { frames, data } = planFrames(this.#plan);
    this.#host.send(rank, 'plan', { digest: this.#plan.digest, options: this.#options, frames }, data);
  }

  #accept(rank: number, digest: string): void {
    if (this.#checkDigest(rank, digest)) this.#advance(rank, 'hello', 'planAccepted', digest);
  }

  #ready(rank: number, ready: Body<'ready'>): void {
    if (!this.#checkDigest(rank, ready.digest)) return;
    if (!this.#advance(rank, 'planAccepted', 'ready', `${ready.device} after ${ready.seconds.toFixed(1)} s`)) return;
    this.#readies.push(ready);
    if (!this.#ranks.every((one) => one.state === 'ready')) return;
    const other = this.#readies.findIndex((one) => one.nextStep !== ready.nextStep);
    if (other >= 0) {
      this.#violation(rank, `begins with step ${ready.nextStep}, another rank with step ${this.#readies[other]?.nextStep}`);
      return;
    }
    this.#firstStep = this.#nextSent = ready.nextStep;
    this.#endStep = Math.max(this.#numSteps, this.#firstStep);
    for (const line of new Set(this.#readies.flatMap(({ remarks }) => remarks))) this.#host.emit(remark(line));
    this.#host.onReady(mergeReadies(this.#readies));
    this.#sendSteps();
  }

  #sendSteps(): void {
    this.#askForEvaluation();
    while (!this.#isStopping && this.#nextSent < Math.min(this.#endStep, this.nextStep + STEPS_IN_FLIGHT)) {
      const step = this.#nextSent++;
      const isDue = step > this.#firstStep && this.checkpoints.isDueAt(step);
      if (isDue) this.#toAll('saveCheckpoint', { digest: this.#plan.digest, step, wait: false });
      this.#toAll('runSteps', { digest: this.#plan.digest, from: step, to: step + 1 });
      this.#askForEvaluation();
    }
    this.#finishWhenDone();
  }

  /** Ranks do what they are sent in its order: what is sent after a step is done after it, on all of them. */
  #askForEvaluation(): void {
    const step = this.#nextSent;
    // Where a run goes on, the one before it has evaluated, unless it died over it, or all that is left is the last.
    if (step === this.#firstStep && step < this.#numSteps && !this.#host.lacksEvaluation(step)) return;
    if (this.evaluations.ask(step)) this.#toAll('evaluate', { digest: this.#plan.digest, step });
  }

  #evaluated(rank: number, evaluated: Evaluated): void {
    if (!this.#checkDigest(rank, evaluated.digest)) return;
    const due = this.evaluations.due(rank);
    if (evaluated.step !== due || this.#firstStep + this.#view(rank).numStepsDone < due) {
      const expected = due === undefined ? 'no evaluation' : `one after ${due}`;
      this.#violation(rank, `evaluated after ${evaluated.step} steps, expected ${expected}`);
      return;
    }
    const evaluation = this.evaluations.answer(rank, evaluated);
    if (evaluation === undefined) return;
    this.#host.emit({ type: 'evaluation', evaluation });
    this.#finishWhenDone();
  }

  #finishWhenDone(): void {
    if (this.#areStepsDone() && this.evaluations.areDone) this.#finish();
  }

  /** After the last step: what is still to be done, one after the other. */
  #finish(): void {
    this.#isFinishing = true;
    const { digest } = this.#plan;
    if (!this.#isSaved()) this.#toAll('saveCheckpoint', { digest, step: this.#endStep, wait: true });
    else if (this.#isOver()) this.#toAll('shutdown', { reason: this.isStopped ? 'the run was stopped' : 'all steps are done' });
    else this.#toAll('exportModel', { digest });
  }

  #checkpointed(rank: number, answer: Body<'checkpointed'>): void {
    if (!this.#checkDigest(rank, answer.digest)) return;
    const wasSaved = this.#isSaved();
    const result = this.checkpoints.take(rank, answer);
    if (result === null) return;
    this.#host.emit({ type: 'checkpoint', checkpoint: result });
    if (this.#isFinishing && !wasSaved && this.#isSaved()) this.#finish();
  }

  #stopped(rank: number, nextStep: number): void {
    this.#view(rank).stoppedBefore = nextStep;
    if (!this.#isStopping || nextStep > this.#nextSent) this.#violation(rank, `stopped before step ${nextStep} unasked`);
    else if (this.#ranks.every((one) => one.stoppedBefore === nextStep)) {
      this.#endStep = nextStep;
      this.evaluations.endAt(nextStep);
      if (!this.#isFinishing) this.#finish();
    } else if (this.#ranks.every((one) => one.stoppedBefore !== null)) {
      this.#violation(rank, `stopped before step ${nextStep}, another rank before another`);
    }
  }

  #exported(rank: number, exported: Body<'exported'>): void {
    const view = this.#view(rank);
    if (!this.#checkDigest(rank, exported.digest)) return;
    if (this.#options.export === null || !this.#areStepsDone() || !this.evaluations.areDone || view.exported !== null) {
      this.#violation(rank, 'exported a model unasked');
      return;
    }
    view.exported = exported;
    const writer = this.#view(WRITER).exported;
    if (writer === null || !this.#isOver()) return;
    const { folder, numWeights, bytes, seconds } = writer;
    this.#host.emit({ type: 'exported', folder, numWeights, bytes, seconds });
    this.#finish();
  }

  #stepDone(rank: number, done: StepDone): void {
    const view = this.#view(rank);
    const expected = this.#firstStep + view.numStepsDone;
    if (view.state === 'ready' && done.step === expected && expected < this.#nextSent) this.#countStep(rank, view, done);
    else this.#violation(rank, `says step ${done.step} is done, expected step ${expected} of ${this.#nextSent} sent`);
  }

  #countStep(rank: number, view: RankView, done: StepDone): void {
    view.numStepsDone += 1;
    const ranks = this.#pending.get(done.step) ?? [];
    ranks[rank] = done;
    this.#pending.set(done.step, ranks);
    if (!this.#ranks.every((one) => this.#firstStep + one.numStepsDone > done.step)) return;
    this.#pending.delete(done.step);
    const step = mergeRanks(ranks);
    this.steps.push(step);
    this.#host.emit({ type: 'step', step, ranks });
    this.#sendSteps();
  }

  #bye(rank: number, numSteps: number): void {
    if (!this.#isOver()) this.#violation(rank, `said bye after ${numSteps} steps, expected ${this.#endStep - this.#firstStep}`);
    else if (this.#advance(rank, 'ready', 'bye', `${numSteps} steps`) && this.#ranks.every((one) => one.state === 'bye')) {
      this.#host.complete();
    }
  }

  #reportError(rank: number, error: Body<'error'>): void {
    this.#host.fail({ kind: 'error', rank, phase: error.phase, step: error.step, error });
  }

  #toAll<T extends MessageType>(type: T, body: Body<T>): void {
    for (let rank = 0; rank < this.#ranks.length; rank += 1) this.#host.send(rank, type, body);
  }

  #areStepsDone(): boolean {
    return this.#ranks.every((one) => one.state === 'ready' || one.state === 'bye') && this.nextStep === this.#endStep;
  }

  /** Whether the state after the last step is in a checkpoint, or could not be put into one, or need not be. */
  #isSaved(): boolean {
    return !this.checkpoints.isOn || this.steps.length === 0 || this.checkpoints.isDoneAt(this.#endStep);
  }

  /** Steps, and what comes after them: a run that was stopped exports nothing. */
  #isOver(): boolean {
    const isExported = this.#options.export === null || this.isStopped || this.#ranks.every((one) => one.exported !== null);
    return this.#areStepsDone() && this.evaluations.areDone && this.#isSaved() && isExported;
  }

  #advance(rank: number, from: RankView['state'], to: RankView['state'], detail: string): boolean {
    const view = this.#view(rank);
    if (view.state !== from) {
      this.#violation(rank, `sent ${to} while ${view.state}, expected it while ${from}`);
      return false;
    }
    view.state = to;
    this.#host.emit({ type: 'rank', rank, state: to, detail });
    return true;
  }

  #checkDigest(rank: number, digest: string): boolean {
    if (digest === this.#plan.digest) return true;
    this.#violation(rank, `holds plan ${digest}, the controller sent ${this.#plan.digest}`);
    return false;
  }

  #violation(rank: number, reason: string, hint?: string): void {
    this.#host.fail({ kind: 'protocol', ...this.placeOf(rank), reason, ...(hint === undefined ? {} : { hint }) });
  }

  #view(rank: number): RankView {
    const view = this.#ranks[rank];
    if (view === undefined) throw new RangeError(`rank ${rank} of ${this.#ranks.length}`);
    return view;
  }
}
