/** Why a plan has the strategy it has: what bounds it, what each choice would change, and what is the next best. */
import type { ExecutionPlan } from '../../plan/executionPlan.js';
import type { PoolKind } from '../../spec/pools.js';
import type { ClusterSpec } from '../../spec/types.js';
import { type Evaluator, estimator } from '../evaluator.js';
import { findStrategy } from '../findStrategy.js';
import { type BuildInput, type Setting, settingOf } from '../setting.js';
import { type Knob, oneKnobAway } from './knobs.js';

/** Seconds are estimated, of an optimizer step. */
export interface ChoiceExplanation {
  readonly kind: 'choiceExplanation';
  readonly stepSeconds: number;
  /** Of computing alone, as this strategy computes. */
  readonly computeSeconds: number;
  /** What the solver would take with as much of one pool as it likes: as long where the pool does not bound it. */
  readonly pools: readonly { readonly pool: string; readonly stepSeconds: number }[];
  /** Null where nothing that is one choice away fits. */
  readonly nextBest: KnobEffect | null;
  /** Every choice moved by one, the fastest first; those that do not fit last. */
  readonly knobs: readonly KnobEffect[];
}

export interface KnobEffect {
  readonly knob: string;
  readonly value: string;
  readonly fits: boolean;
  readonly stepSeconds: number;
  /** Bytes more, or less, at the peak of each pool. */
  readonly pools: readonly { readonly pool: string; readonly moreBytes: number }[];
}

const ENDLESS_BYTES = 2 ** 50;
const BYTES_OF: Readonly<Record<PoolKind, keyof ClusterSpec>> = { device: 'hbmBytes', pinned: 'hostBytes', file: 'diskBytes' };

export function explainChoice({ model, cluster, run, deepspeed, strategy }: ExecutionPlan): ChoiceExplanation {
  const input = { model, cluster, run, deepspeed };
  const evaluate = estimator();
  const setting = settingOf(input);
  const peaks = new Map(evaluate.memory(setting, strategy).pools.map(({ pool, peakBytes }) => [pool, peakBytes]));
  const knobs = oneKnobAway(setting, strategy)
    .map((knob) => effectOf(knob, setting, peaks, evaluate))
    .toSorted((a, b) => Number(b.fits) - Number(a.fits) || a.stepSeconds - b.stepSeconds);
  const [first] = knobs;
  return {
    kind: 'choiceExplanation',
    stepSeconds: evaluate.seconds(setting, strategy),
    computeSeconds: evaluate.computeSeconds(setting, strategy),
    pools: setting.pools.map(({ name, kind }) => ({ pool: name, stepSeconds: withEndless(kind, input) })),
    nextBest: first?.fits === true ? first : null,
    knobs,
  };
}

function effectOf({ knob, value, strategy }: Knob, setting: Setting, peaks: ReadonlyMap<string, number>, evaluate: Evaluator): KnobEffect {
  const { fits, pools } = evaluate.memory(setting, strategy);
  return {
    knob,
    value,
    fits,
    stepSeconds: evaluate.seconds(setting, strategy),
    pools: pools.map(({ pool, peakBytes }) => ({ pool, moreBytes: peakBytes - (peaks.get(pool) ?? 0) })),
  };
}

function withEndless(kind: PoolKind, input: BuildInput): number {
  const endless = { ...input, cluster: { ...input.cluster, [BYTES_OF[kind]]: ENDLESS_BYTES } };
  const evaluate = estimator();
  return evaluate.seconds(settingOf(endless), findStrategy(endless, evaluate).strategy);
}
