/** A strategy that fits, or why there is none and what would make one fit. */
import { explainMisfit } from '../memory/misfit.js';
import type { Strategy } from '../spec/strategy.js';
import type { Evaluator } from './evaluator.js';
import { findIn } from './findStrategy.js';
import { changesToText, pricedChanges } from './pricedChanges.js';
import { type BuildInput, settingOf } from './setting.js';
import { finish, type Steps } from './steps.js';

/** The strategy to train with. Throws `does-not-fit` with the changes under which there is one, the cheapest first. */
export function solveStrategy(input: BuildInput, evaluate: Evaluator): Strategy {
  return finish(solving(input, evaluate));
}

/** The same in steps. */
export function* solving(input: BuildInput, evaluate: Evaluator): Steps<Strategy> {
  const found = yield* findIn(settingOf(input), evaluate);
  if (found.memory.fits) return found.strategy;
  const changes = yield* pricedChanges(input, evaluate);
  throw explainMisfit(found.memory, changes.length === 0 ? undefined : { hint: changesToText(changes), changes });
}
