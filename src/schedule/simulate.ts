/** Discrete-event simulation of a section on four in-order streams. */
import type { OpKind, SectionName } from './op.js';

export interface KindSeconds {
  readonly count: number;
  readonly seconds: number;
}

export interface SectionPrediction {
  readonly name: SectionName;
  /** Times the section runs in one optimizer step. */
  readonly runs: number;
  readonly makespanSeconds: number;
  /** Busy seconds of each stream. */
  readonly busySeconds: Readonly<Record<'compute' | 'h2d' | 'd2h' | 'comm', number>>;
  /** Makespan minus the makespan with free copies. */
  readonly exposedCopySeconds: number;
}

/** What one optimizer step is predicted to cost; one rank's view. */
export interface Prediction {
  readonly kind: 'prediction';
  readonly stepSeconds: number;
  readonly tokensPerSecond: number;
  readonly exposedCopySeconds: number;
  readonly sections: readonly SectionPrediction[];
  /** Per optimizer step. */
  readonly byKind: Readonly<Partial<Record<OpKind, KindSeconds>>>;
  /** Per optimizer step, h2d and d2h. */
  readonly copiedBytes: { readonly h2d: number; readonly d2h: number };
  /** Four conventions: causal or full attention, model FLOPs or with recompute. */
  readonly mfu: {
    readonly causalModel: number;
    readonly causalHardware: number;
    readonly fullModel: number;
    readonly fullHardware: number;
  };
}
