/** When the ranks of a run save their state, and what became of each checkpoint. No clock, no sockets. */

import type { Body } from './protocol.js';
import type { RunOptions } from './runOptions.js';

/** Of all ranks together; times are those of the slowest. */
export interface CheckpointResult {
  /** The first step that it does not have. */
  readonly step: number;
  readonly folder: string;
  readonly bytes: number;
  readonly seconds: number;
  /** Of `seconds`, in which a rank did nothing else. */
  readonly blockedSeconds: number;
  /** Why there is none. */
  readonly problem: string | null;
}

export class Checkpointing {
  readonly results: CheckpointResult[] = [];
  readonly #options: RunOptions['checkpoint'];
  readonly #numRanks: number;
  readonly #answers = new Map<number, (Body<'checkpointed'> | undefined)[]>();

  constructor(options: RunOptions['checkpoint'], numRanks: number) {
    this.#options = options;
    this.#numRanks = numRanks;
  }

  get isOn(): boolean {
    return this.#options !== null;
  }

  /** Whether the state before `step` is to be saved while that step runs. */
  isDueAt(step: number): boolean {
    const every = this.#options?.every ?? null;
    return every !== null && step % every === 0;
  }

  isDoneAt(step: number): boolean {
    return this.results.some((one) => one.step === step);
  }

  /** What a rank says; the result once all have said theirs. */
  take(rank: number, answer: Body<'checkpointed'>): CheckpointResult | null {
    const answers = this.#answers.get(answer.step) ?? [];
    answers[rank] = answer;
    this.#answers.set(answer.step, answers);
    const said = answers.filter((one) => one !== undefined);
    if (said.length < this.#numRanks) return null;
    this.#answers.delete(answer.step);
    const { step, folder, bytes, problem } = answer;
    const seconds = Math.max(...said.map((one) => one.seconds));
    const blockedSeconds = Math.max(...said.map((one) => one.blockedSeconds));
    const result = { step, folder, bytes, seconds, blockedSeconds, problem };
    this.results.push(result);
    return result;
  }
}
