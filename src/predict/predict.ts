/** What one optimizer step costs: the program simulated once as it is, once with free copies and once with a free host. */
import { OP_ROWS } from '../catalog/ops/index.js';
import type { Section } from '../schedule/op.js';
import { evaluationOf } from '../schedule/evaluation.js';
import type { Call } from '../schedule/program.js';
import { opCosts } from './cost.js';
import { deviceOf } from './device.js';
import type { PredictInput } from './input.js';
import { mfuOf, tokensPerStep } from './mfu.js';
import type { Prediction, SectionPrediction } from './prediction.js';
import { rateOrigins } from './rateOrigins.js';
import { type SectionArrays, toArrays } from './sectionArrays.js';
import { type ProgramRun, type SimulateInput, simulateProgram } from './simulate.js';
import { outsideSeconds, runsOf, stepTotals, turnSeconds } from './totals.js';
import { zeroCosts } from './zeroCosts.js';

export type { PredictInput } from './input.js';

/** A larger share of the step than this makes a plan host-bound. */
const HOST_BOUND_SHARE = 0.05;

/** Seconds of one rank; all ranks do the same. Throws `schedule-stuck` for a section whose waits can never be met. */
export function predictRun(input: PredictInput): Prediction {
  const simulation = simulationOf(input);
  const run = simulateProgram(simulation);
  const withFreeCopies = hasCopies(simulation) ? simulateProgram({ ...simulation, free: { copies: true } }) : run;
  const withFreeHost = hasHost(input) ? simulateProgram({ ...simulation, free: { host: true } }) : run;
  const seconds = (one: ProgramRun): number => input.run.gradientAccumulationSteps * one.microStepSeconds + one.endSeconds;
  const outside = outsideSeconds(input);
  const stepSeconds = seconds(run) + outside;
  const hostBoundSeconds = Math.max(0, seconds(run) - seconds(withFreeHost));
  const { flops, ...totals } = stepTotals(input, simulation);
  return {
    kind: 'prediction',
    stepSeconds,
    tokensPerSecond: tokensPerStep(input) / stepSeconds,
    outsideSeconds: outside,
    rateOrigins: rateOrigins(input.cluster),
    exposedCopySeconds: Math.max(0, seconds(run) - seconds(withFreeCopies)),
    hostBoundSeconds,
    isHostBound: hostBoundSeconds > HOST_BOUND_SHARE * stepSeconds,
    sections: sectionPredictions(input, run, withFreeCopies),
    ...totals,
    mfu: mfuOf(input, stepSeconds, flops),
    ...evaluationPrediction(input),
  };
}

function evaluationPrediction(input: PredictInput): Pick<Prediction, 'evaluation'> {
  const evaluation = evaluationOf(input);
  if (evaluation === undefined) return {};
  const { seqLen, dataParallelSize } = input.run;
  const sequenceSeconds = simulateProgram(simulationOf(evaluation)).microStepSeconds + turnSeconds(evaluation);
  return { evaluation: { sequenceSeconds, tokensPerSecond: (seqLen * dataParallelSize) / sequenceSeconds } };
}

/** What the simulator needs, from what a plan holds. */
export function simulationOf(input: PredictInput): SimulateInput {
  const costs = opCosts(input);
  const sections = sectionsOf('plan', input).map((section) => [section.name, toArrays(section, input.streams, costs)] as const);
  return {
    program: input.programs.train,
    sections: new Map<string, SectionArrays>(sections),
    numStreams: input.streams.length,
    device: deviceOf(input.cluster, input.streams),
    zero: zeroCosts(input),
    external: new Map(sectionsOf('zero', input).map((section) => [section.name, externalOps(section, input.streams)])),
  };
}

/** Sections that calls of one owner run. */
function sectionsOf(owner: Call['owner'], { programs, sections }: PredictInput): readonly Section[] {
  const calls = programs.train.turns.flatMap((turn) => turn.calls.filter((call) => call.owner === owner));
  const names = new Set(calls.map(({ section }) => section));
  return sections.filter(({ name }) => names.has(name));
}

function externalOps({ ops }: Section, streams: readonly string[]) {
  return ops.filter(({ kind }) => OP_ROWS[kind].external).map(({ kind, stream }) => ({ kind, stream: streams.indexOf(stream) }));
}

function hasCopies({ sections }: SimulateInput): boolean {
  return [...sections.values()].some((section) => section.hasCopies);
}

/** On the CPU device an op's own cost includes the host's. */
function hasHost({ cluster: { device, rates } }: PredictInput): boolean {
  return device === 'cuda' && (rates.hostSecondsPerOp > 0 || rates.hostSecondsPerKernel > 0);
}

/** Sections in the order of the plan, those that run. */
function sectionPredictions(input: PredictInput, run: ProgramRun, withFreeCopies: ProgramRun): readonly SectionPrediction[] {
  const runs = runsBySection(input);
  return input.sections.flatMap(({ name }) => {
    const sums = run.sections.get(name);
    if (sums === undefined || sums.calls === 0) return [];
    const mean = (total: number): number => total / sums.calls;
    const free = withFreeCopies.sections.get(name)?.advanceSeconds ?? 0;
    return [
      {
        name,
        runs: runs.get(name) ?? 0,
        makespanSeconds: mean(sums.advanceSeconds),
        busySeconds: Object.fromEntries(input.streams.map((stream, i) => [stream, mean(sums.busySeconds[i] ?? 0)])),
        exposedCopySeconds: Math.max(0, mean(sums.advanceSeconds - free)),
      },
    ];
  });
}

function runsBySection(input: PredictInput): ReadonlyMap<string, number> {
  const runs = new Map<string, number>();
  for (const turn of input.programs.train.turns) {
    for (const { section } of turn.calls) runs.set(section, (runs.get(section) ?? 0) + runsOf(turn, input));
  }
  return runs;
}
