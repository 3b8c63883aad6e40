/** Seconds of one optimizer step alone, of a schedule that need not have addresses: what a solver compares. */
import { simulationOf } from './predict.js';
import type { PredictInput } from './input.js';
import { simulateProgram } from './simulate.js';
import { outsideSeconds } from './totals.js';

export interface StepTime {
  readonly seconds: number;
  /** By stream; where one thread executes all of them, of all together. */
  readonly busySeconds: readonly number[];
}

export function stepTime(input: PredictInput): StepTime {
  const simulation = simulationOf(input);
  const run = simulateProgram(simulation);
  const steps = input.run.gradientAccumulationSteps;
  const fixedSeconds = run.endSeconds + outsideSeconds(input);
  const busy = input.streams.map((_, stream) => [...run.sections.values()].reduce((sum, one) => sum + (one.busySeconds[stream] ?? 0), 0));
  const busySeconds = simulation.device.serial ? [busy.reduce((sum, seconds) => sum + seconds, 0)] : busy;
  return { seconds: steps * run.microStepSeconds + fixedSeconds, busySeconds: busySeconds.map((seconds) => steps * seconds) };
}
