/** Where a program that evaluates keeps what it holds, and the schedule of both programs. */
import { layoutSchedule } from '../address/layout.js';
import { buildSchedule } from '../schedule/build.js';
import { bytesOf, withEvaluation } from '../schedule/evaluation.js';
import { type EvaluationPlaces, evaluationSchedule, evaluationStrategy } from '../schedule/policies/index.js';
import type { Schedule } from '../schedule/schedule.js';
import type { Strategy } from '../spec/strategy.js';
import { type Setting, policyContext, scratchFormula } from './setting.js';

/**
 * Beside the schedule of training, whose addresses stay as they are: whatever is in the arenas between two steps is dead, so an evaluation
 * has all of them. It keeps on the device what training's arenas have room for there; where it fits into none of the places that training
 * uses, those that take the least more.
 */
export function addEvaluation(setting: Setting, strategy: Strategy, training: Schedule): Schedule {
  let best: Schedule | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const places of candidates(setting, strategy)) {
    const found = evaluationIn(setting, strategy, places);
    const more = found.pools.reduce((sum, { name, bytes }) => sum + Math.max(0, bytes - bytesOf(training, name)), 0);
    if (more < least) [best, least] = [found, more];
    if (least === 0) break;
  }
  if (best === undefined) throw new RangeError('a strategy without layers has no evaluation');
  return withEvaluation(training, best);
}

function evaluationIn(setting: Setting, strategy: Strategy, places: EvaluationPlaces): Schedule {
  const context = policyContext(setting, evaluationStrategy(strategy, setting.model.numLayers, places));
  return layoutSchedule(buildSchedule(context, setting.machine, scratchFormula(setting), evaluationSchedule));
}

/**
 * From the one that copies least: hidden states are moved once for each layer, keys and values once for each chunk of queries. Training in
 * groups of heads has room on the device for keys and values of one group; those of all have it where gradients of all groups wait.
 */
function candidates({ places: { device, pinned = device } }: Setting, strategy: Strategy): readonly EvaluationPlaces[] {
  const { layers, hiddenGradients, headGroups = 1 } = strategy;
  const distinct = (pools: readonly string[]): readonly string[] => [...new Set([device, ...pools])];
  const hidden = distinct([hiddenGradients, ...layers.map(({ checkpoints }) => checkpoints)]);
  const keyValues = distinct([...layers.map((one) => one.keyValues), ...(headGroups > 1 ? [pinned] : [])]);
  return keyValues.flatMap((keyValue) => hidden.map((hiddenStates) => ({ keyValues: keyValue, hiddenStates })));
}
