/** What a run measured, put together from what each rank says about each step. */

import type { CheckpointResult } from './checkpointing.js';
import type { EvaluationResult } from './evaluations.js';
import type { Body, StepDone } from './protocol.js';

export interface KindResult {
  readonly count: number;
  readonly seconds: number;
}

/** One optimizer step over all ranks. */
export interface StepResult {
  readonly step: number;
  /** Mean token loss of the batch; null when it was NaN or infinite, then `nonFinite` has `loss`. */
  readonly loss: number | null;
  /** That of the update; null where the optimizer has none. */
  readonly learningRate: number | null;
  /** Of the gradients of all ranks before clipping; null where DeepSpeed does not form it, or it was not finite. */
  readonly gradientNorm: number | null;
  /** Of the slowest rank. */
  readonly seconds: number;
  /** Target tokens of all ranks together. */
  readonly tokens: number;
  /** Peak bytes by pool, of the rank with most; of this step where `memoryMeasured`, else of an earlier one. */
  readonly poolBytes: Readonly<Record<string, number>>;
  readonly memoryMeasured: boolean;
  /** By stream, of the rank with most; all ranks run the same ops. */
  readonly copiedBytes: Readonly<Record<string, number>>;
  /** Mean of one rank, as a prediction is one rank's. Empty where ops were not timed. */
  readonly byKind: Readonly<Record<string, KindResult>>;
  /** Seconds outside every op, mean of one rank; 0 where ops were not timed. */
  readonly idleSeconds: number;
  /** A CPU times the ops of every step, a GPU those of the first three and of one in 32. */
  readonly opsTimed: boolean;
  readonly nonFinite: readonly string[];
  /** Where the first of them came from, where `onNonFinite` has the ranks look. */
  readonly nonFinitePlace: string | null;
  readonly lossScale: number;
  /** DeepSpeed left the weights as they were, because a gradient of some rank was not finite. */
  readonly skipped: boolean;
}

/**
 * A whole run. Peaks are the largest of the steps in which memory was measured; `byKind` and `idleSeconds` sums over those in which ops were
 * timed, the other numbers over all.
 */
export interface RunResult
  extends Omit<StepResult, 'step' | 'loss' | 'learningRate' | 'gradientNorm' | 'lossScale' | 'skipped' | 'nonFinitePlace'> {
  readonly kind: 'runResult';
  /** The first step that was not run; `steps` begin above 0 where the run went on from a checkpoint. */
  readonly nextStep: number;
  /** Asked to stop before the last step. */
  readonly isStopped: boolean;
  readonly checkpoints: readonly CheckpointResult[];
  readonly digest: string;
  readonly numRanks: number;
  readonly steps: readonly StepResult[];
  /** Of held-out data, where there is any. */
  readonly evaluations: readonly EvaluationResult[];
  readonly numSkipped: number;
  /** Versions of what the ranks ran with. */
  readonly versions: Readonly<Record<string, string>>;
  /**
   * Kernels that the ranks ran with: `attn` and `attnBwd`, those beside attention that are not plain, by kind, and who launched `copies`.
   * Where ranks differ, all names of a kind with commas between them.
   */
  readonly kernels: Readonly<Record<string, string>>;
  /** From start to the last rank ready. */
  readonly loadSeconds: number;
  /** Peak bytes of start-up by pool, before the arenas were made, of the rank with most; only pools that were measured. */
  readonly loadPoolBytes: Readonly<Record<string, number>>;
  /** Of the device, taken for collectives beside what PyTorch allocated, of the rank with most; null where no rank could tell. */
  readonly communicatorBytes: number | null;
}

/** `ranks`: what each rank says about the same step, by rank. */
export function mergeRanks(ranks: readonly StepDone[]): StepResult {
  const [first] = ranks;
  if (first === undefined) throw new RangeError('a step needs the result of at least one rank');
  return {
    step: first.step,
    loss: first.loss,
    learningRate: first.learningRate,
    gradientNorm: first.gradientNorm,
    seconds: largest(ranks, (one) => one.seconds),
    tokens: first.numTokens,
    poolBytes: largestByName(ranks.map((one) => one.poolBytes)),
    memoryMeasured: ranks.every((one) => one.memoryMeasured),
    copiedBytes: largestByName(ranks.map((one) => one.copiedBytes)),
    byKind: addKinds(
      ranks.map((one) => one.byKind),
      ranks.length,
    ),
    idleSeconds: sum(ranks, (one) => one.idleSeconds) / ranks.length,
    opsTimed: ranks.every((one) => one.opsTimed),
    nonFinite: uniqueSorted(ranks.flatMap((one) => one.nonFinite)),
    nonFinitePlace: first.nonFinitePlace,
    lossScale: first.lossScale,
    skipped: ranks.some((one) => one.skipped),
  };
}

/** What ranks say when they are ready, put together. */
export type StartFacts = Pick<RunResult, 'versions' | 'kernels' | 'loadPoolBytes' | 'communicatorBytes'>;
export type RunFacts = Pick<RunResult, 'digest' | 'numRanks' | 'loadSeconds' | 'nextStep' | 'isStopped' | 'checkpoints' | keyof StartFacts>;

/** `ranks`: what each rank says when it is ready. */
export function mergeReadies(ranks: readonly Body<'ready'>[]): StartFacts {
  const known = ranks.flatMap(({ communicatorBytes }) => (communicatorBytes === null ? [] : [communicatorBytes]));
  return {
    versions: ranks.at(-1)?.versions ?? {},
    kernels: allNames(ranks.map(({ kernels }) => kernels)),
    loadPoolBytes: largestByName(ranks.map(({ poolBytes }) => poolBytes)),
    communicatorBytes: known.length === 0 ? null : Math.max(...known),
  };
}

/** By kind what any rank has. */
function allNames(ranks: readonly Readonly<Record<string, string>>[]): Record<string, string> {
  const kinds = [...new Set(ranks.flatMap((kernels) => Object.keys(kernels)))];
  const namesOf = (kind: string): readonly string[] => uniqueSorted(ranks.flatMap((kernels) => kernels[kind] ?? []));
  return Object.fromEntries(kinds.map((kind) => [kind, namesOf(kind).join(', ')]));
}

export function mergeSteps(steps: readonly StepResult[], evaluations: readonly EvaluationResult[], facts: RunFacts): RunResult {
  const measured = steps.filter((one) => one.memoryMeasured);
  return {
    ...facts,
    kind: 'runResult',
    steps,
    evaluations,
    seconds: sum(steps, (one) => one.seconds),
    tokens: sum(steps, (one) => one.tokens),
    poolBytes: largestByName(measured.map((one) => one.poolBytes)),
    memoryMeasured: measured.length > 0,
    copiedBytes: byName(
      steps.map((one) => one.copiedBytes),
      (a, b) => a + b,
    ),
    byKind: addKinds(
      steps.map((one) => one.byKind),
      1,
    ),
    idleSeconds: sum(steps, (one) => one.idleSeconds),
    opsTimed: steps.some((one) => one.opsTimed),
    numSkipped: steps.filter((one) => one.skipped).length,
    nonFinite: uniqueSorted(steps.flatMap((one) => one.nonFinite)),
  };
}

/** Sums by kind, divided by `divisor`. */
function addKinds(tables: readonly Readonly<Record<string, KindResult>>[], divisor: number): Record<string, KindResult> {
  const kinds = uniqueSorted(tables.flatMap((table) => Object.keys(table)));
  return Object.fromEntries(
    kinds.map((kind) => [
      kind,
      {
        count: sum(tables, (table) => table[kind]?.count ?? 0) / divisor,
        seconds: sum(tables, (table) => table[kind]?.seconds ?? 0) / divisor,
      },
    ]),
  );
}

function largestByName(tables: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  return byName(tables, Math.max);
}

/** Tables put together name by name; a name that a table lacks counts 0. */
function byName(tables: readonly Readonly<Record<string, number>>[], add: (a: number, b: number) => number): Record<string, number> {
  const names = uniqueSorted(tables.flatMap((table) => Object.keys(table)));
  return Object.fromEntries(names.map((name) => [name, tables.reduce((total, table) => add(total, table[name] ?? 0), 0)]));
}

function largest<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((most, item) => Math.max(most, of(item)), 0);
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

function uniqueSorted(items: readonly string[]): string[] {
  return [...new Set(items)].sort();
}
