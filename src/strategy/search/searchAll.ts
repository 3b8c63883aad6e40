/**
 * The fastest strategy that fits: with all heads of a rank at once, then in groups of them, where what these compute more leaves something to
 * gain. A number of groups is searched as it is where a user asks for it, and is left out only where it cannot be faster: so none that a
 * user may force is.
 */
import { headGroupCounts } from '../../spec/parallelLayout.js';
import { RECOMPUTE, type Strategy } from '../../spec/strategy.js';
import { chunkCounts } from '../candidates.js';
import type { Evaluator } from '../evaluator.js';
import type { Setting } from '../setting.js';
import type { Steps } from '../steps.js';
import { assembleUniform, pinnedPool } from './assemble.js';
import type { FilledSegment } from './fill.js';
import { frames } from './frames.js';
import { mostKeeping } from './rooms.js';
import { type Found, Search, WORTH_A_LOOK } from './search.js';

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

/**
 * What needs least memory of each pool: as many chunks as there can be, outputs recomputed or kept on the host, checkpoints as far
 * apart as there are of them, since the states inside a segment need room too, and heads at once or in as many groups as there can be.
 */
export function leanest(setting: Setting): readonly Strategy[] {
  const pinned = pinnedPool(setting);
  const numChunks = chunkCounts(setting.run).at(-1) ?? 1;
  const length = setting.run.segmentLayers ?? Math.ceil(Math.sqrt(setting.model.numLayers));
  const kept = [RECOMPUTE, pinned].map((attentionOutput): FilledSegment => ({ length, checkpoints: pinned, attentionOutput }));
  const most = groupCounts(setting).slice(-1);
  return [setting, ...most.map((headGroups) => inGroups(setting, headGroups))].flatMap((one) =>
    frames(one).flatMap((frame) => kept.map((segment) => assembleUniform(one, frame, numChunks, segment))),
  );
}

/** Fewer compute less; the most need least memory, and where they do not fit no others do. */
function mostFirst(counts: readonly number[]): readonly number[] {
  return [...counts.slice(-1), ...counts.slice(0, -1)];
}

/** Of two groups and more, that the solver may choose among. */
function groupCounts({ run, layout }: Setting): readonly number[] {
  return run.headGroups === undefined ? headGroupCounts(layout).slice(1) : [];
}

function inGroups(setting: Setting, headGroups: number): Setting {
  return { ...setting, run: { ...setting.run, headGroups } };
}
