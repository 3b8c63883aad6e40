/** Whether a request has a plan that fits, told without building one. */
import type { MemoryLedger } from '../../memory/ledger.js';
import { explainMisfit, misfitPools, type PoolMisfit } from '../../memory/misfit.js';
import { FpdtError } from '../../spec/errors.js';
import { withChunks } from '../../spec/sizes.js';
import { refuseTooManyOps } from '../planSize.js';
import { refusePositionsPastTable } from '../positions.js';
import { type BuildInput, settingOf } from '../setting.js';
import { estimator, type Evaluator } from '../evaluator.js';
import { type Evaluated, findStrategy } from '../findStrategy.js';
import { solveStrategy } from '../solve.js';

/** What keeps a request from a plan. */
export interface Bound {
  /** `does-not-fit`, or the code of the error that planning would end with. */
  readonly code: string;
  readonly message: string;
  /** Pools too small for the strategy that misses by least; none where it is not memory that is missing. */
  readonly pools: readonly PoolMisfit[];
}

export interface Fitting {
  readonly fits: true;
  readonly input: BuildInput;
  readonly found: Evaluated;
}

export interface NotFitting {
  readonly fits: false;
  readonly bound: Bound;
  readonly error: FpdtError;
  /** Of the strategy that misses by least, where it is memory that is missing. */
  readonly memory?: MemoryLedger;
}

export type Probe = Fitting | NotFitting;

/** Refuses what planning would refuse: a request that fits has a plan. Errors that are not a user's to mend are thrown. */
export function probe(input: BuildInput, evaluate: Evaluator): Probe {
  try {
    const found = findStrategy(input, evaluate);
    const { strategy, memory } = found;
    if (!memory.fits) return { ...notFitting(explainMisfit(memory), misfitPools(memory)), memory };
    refusePositionsPastTable(input.model, withChunks(input.run, strategy.numChunks));
    refuseTooManyOps(settingOf(input), strategy);
    return { fits: true, input, found };
  } catch (error) {
    return refused(error);
  }
}

/** Of a request that was not even understood. */
export function refused(error: unknown): NotFitting {
  if (!(error instanceof FpdtError)) throw error;
  return notFitting(error, []);
}

/** Why not even the easiest request has a plan: what planning it says, with the change that would help, after `what`. */
export function hopeless(what: string, easiest: BuildInput): FpdtError {
  try {
    // A limit is looked for by memory alone; changes have prices in time.
    solveStrategy(easiest, estimator());
  } catch (error) {
    const { message, code, hint, details } = refused(error).error;
    return new FpdtError(`${what}: ${message}`, { code, hint, details, cause: error });
  }
  throw new RangeError(`${what}, but the easiest request has a strategy`);
}

function notFitting(error: FpdtError, pools: Bound['pools']): NotFitting {
  return { fits: false, bound: { code: error.code, message: error.message, pools }, error };
}
