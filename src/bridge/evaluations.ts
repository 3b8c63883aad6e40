/** When a run evaluates, and what the ranks say about it. */
import type { Evaluated } from './protocol.js';
import type { RunOptions } from './runOptions.js';

/** Loss on held-out data, over all ranks. */
export interface EvaluationResult {
  /** Optimizer steps that had been done. */
  readonly step: number;
  /** Mean token loss; null when it was NaN or infinite. */
  readonly loss: number | null;
  /** Its exponential; null where that is beyond any number. */
  readonly perplexity: number | null;
  readonly sequences: number;
  /** Target tokens of all ranks together. */
  readonly tokens: number;
  /** Of the slowest rank. */
  readonly seconds: number;
}

export class Evaluations {
  readonly results: EvaluationResult[] = [];
  readonly #options: RunOptions['evaluation'];
  readonly #numSteps: number;
  readonly #numRanks: number;
  /** Steps after which one was asked for, in order. */
  #asked: readonly number[] = [];
  #isCutShort = false;
  /** By rank. */
  readonly #answers: Evaluated[][];

  constructor(options: RunOptions['evaluation'], numSteps: number, numRanks: number) {
    this.#options = options;
    this.#numSteps = numSteps;
    this.#numRanks = numRanks;
    this.#answers = Array.from({ length: numRanks }, () => []);
  }

  /** Whether one follows when so many steps are done: every so many of them, and at the end. Each is asked for once. */
  ask(numStepsDone: number): boolean {
    if (this.#options === null || this.#asked.at(-1) === numStepsDone) return false;
    const { every } = this.#options;
    const isDue = numStepsDone === this.#numSteps || (every !== null && numStepsDone > 0 && numStepsDone % every === 0);
    if (isDue) this.#asked = [...this.#asked, numStepsDone];
    return isDue;
  }

  /** After which step the rank has one to answer; undefined where it has none. */
  due(rank: number): number | undefined {
    return this.#asked[this.#answers[rank]?.length ?? 0];
  }

  /** The result once all ranks have answered. To be called with what is due. */
  answer(rank: number, evaluated: Evaluated): EvaluationResult | undefined {
    this.#answers[rank]?.push(evaluated);
    const number = this.results.length;
    const answers = this.#answers.flatMap((own) => own[number] ?? []);
    if (answers.length < this.#numRanks) return undefined;
    const result = merge(answers);
    this.results.push(result);
    return result;
  }

  /** The run ends when so many steps are done: of later ones ranks leave out what they were asked. */
  endAt(numStepsDone: number): void {
    this.#asked = this.#asked.filter((step) => step <= numStepsDone);
    this.#isCutShort = numStepsDone < this.#numSteps;
  }

  /** Whether all that were asked for are answered, the last one among them. */
  get areDone(): boolean {
    if (this.#options === null) return true;
    return (this.#isCutShort || this.#asked.at(-1) === this.#numSteps) && this.results.length === this.#asked.length;
  }
}

function merge(answers: readonly Evaluated[]): EvaluationResult {
  const [first] = answers;
  if (first === undefined) throw new RangeError('an evaluation needs the answer of at least one rank');
  const { step, loss, numSequences, numTokens } = first;
  const seconds = answers.reduce((most, one) => Math.max(most, one.seconds), 0);
  return { step, loss, perplexity: perplexityOf(loss), sequences: numSequences, tokens: numTokens, seconds };
}

function perplexityOf(loss: number | null): number | null {
  const perplexity = loss === null ? Number.NaN : Math.exp(loss);
  return Number.isFinite(perplexity) ? perplexity : null;
}
