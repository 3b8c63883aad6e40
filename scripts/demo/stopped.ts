/** The demo's second half: the same training, stopped half-way and gone on with on other ranks, must end with the losses it had without a stop. */
import { rmSync } from 'node:fs';
import { type ExecutionPlan, type LaunchOptions, launchRun, type RunResult } from '../../src/index.js';

/** Largest relative difference of a loss on other ranks: sums of fp32 numbers in another order. */
export const TOLERANCE = 1e-5;

export interface Stopped {
  /** Run on the ranks of the run without a stop. */
  readonly first: RunResult;
  /** Gone on from its checkpoint. */
  readonly second: RunResult;
}

/** Trains by `plan`, is stopped half-way, and goes on by `otherPlan` from the checkpoint that this leaves in `checkpoint`. */
export async function trainInTwoLives(
  plan: ExecutionPlan,
  otherPlan: ExecutionPlan,
  options: LaunchOptions & { readonly checkpoint: string },
  say: (line: string) => void,
): Promise<Stopped> {
  rmSync(options.checkpoint, { recursive: true, force: true });
  const half = Math.floor(plan.run.numSteps / 2);
  const first = await oneLife(plan, options, say, half);
  say(`stopped after step ${first.nextStep} with a checkpoint; going on with ${otherPlan.cluster.numRanks} ranks`);
  // The weights are those of the checkpoint.
  const second = await oneLife(otherPlan, { ...options, weights: undefined, resume: 'auto' }, say);
  return { first, second };
}

/** `half`: the run is stopped by its step of this number, counted from 1. */
async function oneLife(plan: ExecutionPlan, options: LaunchOptions, say: (line: string) => void, half?: number): Promise<RunResult> {
  const run = await launchRun(plan, options);
  for await (const event of run) {
    if (event.type === 'evaluation') say(`after step ${event.evaluation.step}: held-out loss ${event.evaluation.loss?.toFixed(6)}`);
    if (event.type !== 'step') continue;
    say(`step ${event.step.step + 1} on ${plan.cluster.numRanks} ranks: loss ${event.step.loss?.toFixed(6)}`);
    // A stop is agreed on at the beginning of the next step and takes effect after it.
    if (event.step.step + 2 === half || (half === 1 && event.step.step === 0)) run.stop('half-way');
  }
  return run.result;
}

export interface Held {
  readonly kept: readonly string[];
  readonly failures: readonly string[];
  /** Largest relative difference of a loss on other ranks. */
  readonly error: number;
}

/** Holds both lives against the run without a stop: on its ranks to the bit, on others within `TOLERANCE`. */
export function holdAgainst(whole: RunResult, { first, second }: Stopped): Held {
  const losses = new Map(whole.steps.map(({ step, loss }) => [step, loss]));
  const numSteps = first.steps.length + second.steps.length;
  const isWhole = first.isStopped && second.nextStep === whole.nextStep && numSteps === whole.steps.length;
  const isSame = first.steps.every(({ step, loss }) => loss !== null && loss === losses.get(step));
  const error = Math.max(
    ...second.steps.map(({ step, loss }) => difference(loss, losses.get(step))),
    difference(second.evaluations.at(-1)?.loss, whole.evaluations.at(-1)?.loss),
  );
  const promises: readonly (readonly [boolean, string])[] = [
    [isWhole, `stopped after ${first.nextStep} of ${whole.nextStep} steps, gone on to ${second.nextStep}: none lost, none twice`],
    [isSame, `until it was stopped every loss equals the other run's to the bit`],
    [
      error <= TOLERANCE,
      `on ${second.numRanks} ranks losses and held-out loss are the other run's within ${TOLERANCE}: ${error.toExponential(1)}`,
    ],
  ];
  const lines = (isKept: boolean): string[] => promises.filter(([ok]) => ok === isKept).map(([, line]) => line);
  return { kept: lines(true), failures: lines(false), error };
}

/** NaN where there is nothing to compare, which keeps no promise. */
function difference(loss: number | null | undefined, expected: number | null | undefined): number {
  return typeof loss === 'number' && typeof expected === 'number' ? Math.abs(loss - expected) / expected : Number.NaN;
}
