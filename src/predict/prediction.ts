/** What one optimizer step is predicted to cost; one rank's view, and all ranks do the same. */
import type { OpKind } from '../catalog/ops/index.js';
import type { RateOrigins } from '../spec/types.js';

export interface KindSeconds {
  readonly count: number;
  /** Of all of them alone, one after the other. */
  readonly seconds: number;
}

export interface SectionPrediction {
  readonly name: string;
  /** Calls in one optimizer step. */
  readonly runs: number;
  /** By which a call advances the whole program's clock, on average; what runs under earlier work costs nothing. */
  readonly makespanSeconds: number;
  /** Busy seconds of each stream in one call, on average. */
  readonly busySeconds: Readonly<Record<string, number>>;
  /** Makespan minus the makespan with free copies. */
  readonly exposedCopySeconds: number;
}

export interface Prediction {
  readonly kind: 'prediction';
  readonly stepSeconds: number;
  readonly tokensPerSecond: number;
  /** Of the step, outside of every op. */
  readonly outsideSeconds: number;
  /** How each of the cluster's rates was come by, but for those that are 0. */
  readonly rateOrigins: RateOrigins;
  readonly exposedCopySeconds: number;
  /** By which the step would be shorter if the host issued ops at no cost. */
  readonly hostBoundSeconds: number;
  /** Whether that is more than a twentieth of the step: then larger chunks are faster. */
  readonly isHostBound: boolean;
  readonly sections: readonly SectionPrediction[];
  /** Per optimizer step; ZeRO's own gathers, releases and reductions too. */
  readonly byKind: Readonly<Partial<Record<OpKind, KindSeconds>>>;
  /** Per optimizer step, by the stream of the link. */
  readonly copiedBytes: Readonly<Record<string, number>>;
  readonly mfu: Mfu;
  /** Where the plan has a program that evaluates. */
  readonly evaluation?: EvaluationPrediction;
}

/** Of a sequence of each replica. */
export interface EvaluationPrediction {
  readonly sequenceSeconds: number;
  /** Of all replicas. */
  readonly tokensPerSecond: number;
}

/** Model FLOPs utilization in four conventions: causal or full attention, model FLOPs or with recompute. */
export interface Mfu {
  readonly causalModel: number;
  readonly causalHardware: number;
  readonly fullModel: number;
  readonly fullHardware: number;
}
