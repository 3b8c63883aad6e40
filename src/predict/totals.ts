/** Sums over a whole optimizer step: ops by kind, copied bytes by stream, FLOPs. */
import type { OpKind } from '../catalog/ops/index.js';
import type { PredictInput } from './input.js';
import type { HardwareFlops } from './mfu.js';
import type { KindSeconds, Prediction } from './prediction.js';
import type { SectionArrays } from './sectionArrays.js';
import type { SimulateInput } from './simulate.js';

export interface StepTotals extends Pick<Prediction, 'byKind' | 'copiedBytes'> {
  readonly flops: HardwareFlops;
}

export function stepTotals(input: PredictInput, { sections, zero, external }: SimulateInput): StepTotals {
  const sums = new StepSums(input.streams.length);
  for (const turn of input.programs.train.turns) {
    const runs = runsOf(turn, input);
    for (const call of turn.calls) {
      if (call.owner === 'zero') {
        for (const { kind } of external.get(call.section) ?? []) sums.addKind(kind, { count: 1, seconds: zero.seconds(kind, turn) }, runs);
      } else sums.addSection(sections.get(call.section), runs);
    }
  }
  const copied = input.links.map(({ stream }) => [stream, sums.copiedBytes[input.streams.indexOf(stream)] ?? 0] as const);
  return {
    byKind: Object.fromEntries(sums.byKind),
    copiedBytes: Object.fromEntries(copied),
    flops: { attention: sums.attention, other: sums.other },
  };
}

/** Times that a turn runs in one optimizer step. */
export function runsOf({ module }: { readonly module: string }, { run }: Pick<PredictInput, 'run'>): number {
  return module === 'end' ? 1 : run.gradientAccumulationSteps;
}

/** Outside the ops: of the step, and of each of its turns. */
export function outsideSeconds(input: PredictInput): number {
  const { stepOverheadSeconds, turnOverheadSeconds } = input.cluster.rates;
  if (turnOverheadSeconds === 0) return stepOverheadSeconds;
  return stepOverheadSeconds + turnOverheadSeconds * input.programs.train.turns.reduce((sum, turn) => sum + runsOf(turn, input), 0);
}

/** Outside the ops of each turn, where each runs once. */
export function turnSeconds({ cluster, programs }: Pick<PredictInput, 'cluster' | 'programs'>): number {
  return cluster.rates.turnOverheadSeconds * programs.train.turns.length;
}

class StepSums {
  readonly byKind = new Map<OpKind, KindSeconds>();
  readonly copiedBytes: Float64Array;
  attention = 0;
  other = 0;

  constructor(numStreams: number) {
    this.copiedBytes = new Float64Array(numStreams);
  }

  addKind(kind: OpKind, { count, seconds }: KindSeconds, runs: number): void {
    const total = this.byKind.get(kind) ?? { count: 0, seconds: 0 };
    this.byKind.set(kind, { count: total.count + runs * count, seconds: total.seconds + runs * seconds });
  }

  addSection(section: SectionArrays | undefined, runs: number): void {
    if (section === undefined) return;
    const { byKind, copiedBytes, attentionFlops, otherFlops } = section.totals;
    for (const [kind, total] of byKind) this.addKind(kind, total, runs);
    copiedBytes.forEach((bytes, stream) => {
      this.copiedBytes[stream] = (this.copiedBytes[stream] ?? 0) + runs * bytes;
    });
    this.attention += runs * attentionFlops;
    this.other += runs * otherFlops;
  }
}
