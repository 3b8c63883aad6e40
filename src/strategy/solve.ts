/** A strategy that fits, or why there is none and what would make one fit. */
import { explainMisfit } from '../memory/misfit.js';
import { FpdtError } from '../spec/errors.js';
import type { Strategy } from '../spec/strategy.js';
import type { Evaluator } from './evaluator.js';
import { findIn } from './findStrategy.js';
import { changesToText, pricedChanges } from './pricedChanges.js';
import { type BuildInput, settingOf } from './setting.js';
import { finish, type Steps } from './steps.js';

const NOTHING_FITS =
  'no change that was tried makes it fit, of ZeRO stage, optimizer offload, host memory, number of GPUs and length; ' +
  'take GPUs with more memory, a smaller model or a far shorter sequence';

/** The strategy to train with. Throws `does-not-fit` with the changes under which there is one, the cheapest first. */
export function solveStrategy(input: BuildInput, evaluate: Evaluator): Strategy {
  return finish(solving(input, evaluate));
}

/** The same in steps. */
export function* solving(input: BuildInput, evaluate: Evaluator): Steps<Strategy> {
  const found = yield* findIn(settingOf(input), evaluate);
  if (found.memory.fits) return found.strategy;
  const changes = yield* pricedChanges(input, evaluate);
  if (changes.length > 0) throw explainMisfit(found.memory, { hint: changesToText(changes), changes });
  const { message, code, details, hint = NOTHING_FITS } = explainMisfit(found.memory);
  throw new FpdtError(message, { code, details, hint });
}
