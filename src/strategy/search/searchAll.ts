/**
 * The fastest strategy that fits: with all heads of a rank at once, then in groups of them, where what these compute more leaves something to
 * gain. A number of groups is searched as it is where a user asks for it, and is left out only where it cannot be faster: so none that a
 * user may force is.
 */
import type { Evaluator } from '../evaluator.js';
import type { Setting } from '../setting.js';
import type { Steps } from '../steps.js';
import { WORTH_A_LOOK } from './bound.js';
import { groupCounts, inGroups } from './groups.js';
import { mostKeeping } from './rooms.js';
import { type Found, Search } from './search.js';

/** Undefined where no strategy fits. A step for each frame and number of chunks. */
export function* searchAll(setting: Setting, evaluate: Evaluator): Steps<Found | undefined> {
  const atOnce = new Search(setting, evaluate);
  let best = yield* atOnce.run();
  const counts = groupCounts(setting);
  if (counts.length === 0 || atOnce.isGoodEnough() || atOnce.hasRoom()) return best;
  const keeping = mostKeeping(inGroups(setting, Math.max(...counts)), evaluate);
  for (const headGroups of best === undefined ? mostFirst(counts) : counts) {
    yield;
    const others = best === undefined ? undefined : { seconds: best.seconds, costs: atOnce.costs() };
    const search = new Search(inGroups(setting, headGroups), evaluate, others);
    if (!search.mayBeFaster(keeping)) break;
    const found = yield* search.run();
    if (found === undefined && best === undefined) return undefined;
    if (found !== undefined && WORTH_A_LOOK * found.seconds < (best?.seconds ?? Number.POSITIVE_INFINITY)) best = found;
  }
  return best;
}

/** Fewer compute less; the most need least memory, and where they do not fit no others do. */
function mostFirst(counts: readonly number[]): readonly number[] {
  return [...counts.slice(-1), ...counts.slice(0, -1)];
}
