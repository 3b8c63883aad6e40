/** Seconds of one optimizer step alone, of a schedule that need not have addresses: what a solver compares. */
import { simulationOf } from './predict.js';
import type { PredictInput } from './input.js';
import { type SimulateInput, simulateProgram } from './simulate.js';
import { outsideSeconds, runsOf } from './totals.js';

export interface StepTime {
  readonly seconds: number;
  /** By stream; where one thread executes all of them, of all together. */
  readonly busySeconds: readonly number[];
  /** The same of ops that nothing slows: no schedule of them takes less than any stream. */
  readonly aloneSeconds: readonly number[];
}

export function stepTime(input: PredictInput): StepTime {
  const simulation = simulationOf(input);
  const run = simulateProgram(simulation);
  const steps = input.run.gradientAccumulationSteps;
  const fixedSeconds = run.endSeconds + outsideSeconds(input);
  const busy = input.streams.map((_, stream) => [...run.sections.values()].reduce((sum, one) => sum + (one.busySeconds[stream] ?? 0), 0));
  const together = (seconds: readonly number[]): readonly number[] =>
    simulation.device.serial ? [seconds.reduce((sum, one) => sum + one, 0)] : seconds;
  return {
    seconds: steps * run.microStepSeconds + fixedSeconds,
    busySeconds: together(busy).map((seconds) => steps * seconds),
    aloneSeconds: together(aloneSeconds(input, simulation)),
  };
}

function aloneSeconds(input: PredictInput, { sections }: SimulateInput): readonly number[] {
  const seconds = input.streams.map(() => 0);
  for (const turn of input.programs.train.turns) {
    for (const { section, owner } of turn.calls) {
      const ofCall = owner === 'plan' ? sections.get(section)?.totals.seconds : undefined;
      for (const stream of seconds.keys()) seconds[stream] = (seconds[stream] ?? 0) + runsOf(turn, input) * (ofCall?.[stream] ?? 0);
    }
  }
  return seconds;
}
