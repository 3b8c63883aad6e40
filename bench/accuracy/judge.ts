/** What a prediction must keep to, and what of it is judged. */
import { median } from '../../src/report/compare.js';
import type { PolicyRun, Round, RoundPolicy } from './round.js';
import type { Shape } from './shapes.js';

/** Step time, of the median shape, and of each op kind. */
export const MAX_STEP_ERROR = 0.1;
export const MAX_KIND_ERROR = 0.25;
/** Of the machine's speed between any two of the calibrations before, between and after a shape's runs. */
export const MAX_DRIFT = 0.05;
/** Kinds that take less of a step are printed and not judged: together they cannot move it. */
export const MIN_KIND_SHARE = 0.01;

export interface KindAccuracy {
  readonly kind: string;
  readonly plannedCount: number;
  readonly measuredCount: number;
  readonly plannedSeconds: number;
  readonly measuredSeconds: number;
  /** Planned over measured, less 1; null of what took no time. */
  readonly error: number | null;
  readonly judged: boolean;
}

export interface RunAccuracy {
  readonly policy: RoundPolicy;
  readonly numTimedSteps: number;
  readonly plannedSeconds: number;
  readonly measuredSeconds: number;
  readonly error: number;
  readonly plannedOutsideSeconds: number;
  readonly measuredIdleSeconds: number;
  readonly kinds: readonly KindAccuracy[];
}

export interface ShapeAccuracy {
  readonly shape: Shape;
  /** Rounds that were run; the one of least drift is told. */
  readonly numRounds: number;
  readonly drift: number;
  /** False where the machine's speed changed too much in every round. */
  readonly judged: boolean;
  readonly runs: readonly RunAccuracy[];
}

export interface Accuracy {
  readonly kind: 'accuracyBenchmark';
  readonly shapes: readonly ShapeAccuracy[];
  readonly numJudged: number;
  /** Over the judged shapes, of each the larger error of its two policies; null where none is judged. */
  readonly medianStepError: number | null;
  readonly numKindsJudged: number;
  readonly numKindsWithin: number;
  /** Of what was judged, whether all is within its bounds; null where nothing is judged. */
  readonly ok: boolean | null;
}

export function driftOf({ speedFactor }: Pick<Round, 'speedFactor'>): number {
  return Math.max(speedFactor, 1 / speedFactor) - 1;
}

export function shapeAccuracy(shape: Shape, rounds: readonly Round[]): ShapeAccuracy {
  const [best] = [...rounds].sort((a, b) => driftOf(a) - driftOf(b));
  if (best === undefined) throw new RangeError('a shape was not run');
  const drift = driftOf(best);
  return { shape, numRounds: rounds.length, drift, judged: drift <= MAX_DRIFT, runs: best.runs.map(runAccuracy) };
}

function runAccuracy({ policy, comparison, outsideSeconds }: PolicyRun): RunAccuracy {
  const { planned, measured } = comparison.stepSeconds;
  return {
    policy,
    numTimedSteps: comparison.numTimedSteps,
    plannedSeconds: planned,
    measuredSeconds: measured,
    error: planned / measured - 1,
    plannedOutsideSeconds: outsideSeconds,
    measuredIdleSeconds: comparison.idleSeconds,
    kinds: comparison.kinds.map((kind) => ({
      ...kind,
      error: kind.measuredSeconds === 0 ? null : kind.plannedSeconds / kind.measuredSeconds - 1,
      judged: Math.max(kind.plannedSeconds, kind.measuredSeconds) >= MIN_KIND_SHARE * measured,
    })),
  };
}

export function accuracyOf(shapes: readonly ShapeAccuracy[]): Accuracy {
  const judged = shapes.filter((shape) => shape.judged);
  const worst = judged.map(({ runs }) => Math.max(...runs.map(({ error }) => Math.abs(error))));
  const medianStepError = judged.length === 0 ? null : median(worst);
  const kinds = judged.flatMap(({ runs }) => runs.flatMap((run) => run.kinds.filter((kind) => kind.judged)));
  const within = kinds.filter(({ error }) => error !== null && Math.abs(error) <= MAX_KIND_ERROR);
  return {
    kind: 'accuracyBenchmark',
    shapes,
    numJudged: judged.length,
    medianStepError,
    numKindsJudged: kinds.length,
    numKindsWithin: within.length,
    ok: medianStepError === null ? null : medianStepError <= MAX_STEP_ERROR && within.length === kinds.length,
  };
}
