/** Sub-groups of a rank's shares (`_create_fp16_sub_groups`, zero/stage3.py of DeepSpeed 0.19.8). */
import type { ParameterView } from '../spec/types.js';
import { shardOf, type Terms } from './stateTerms.js';

type Facts = Pick<Terms, 'parameters' | 'classOf' | 'numRanks' | 'zero'>;

/** Weights that train in their order, until there are sub_group_size elements of them. */
export function subGroups(facts: Facts): readonly (readonly ParameterView[])[] {
  const groups: ParameterView[][] = [];
  let open: ParameterView[] = [];
  let size = 0;
  for (const view of weightsInOrder(facts)) {
    if (!view.trainable) continue;
    open.push(view);
    size += shardOf([view], facts.numRanks);
    if (size < facts.zero.subGroupElements) continue;
    groups.push(open);
    open = [];
    size = 0;
  }
  return open.length === 0 ? groups : [...groups, open];
}

/** Elements of a rank in the largest. */
export function largestSubGroup(facts: Facts): number {
  return Math.max(0, ...subGroups(facts).map((group) => shardOf(group, facts.numRanks)));
}

export function weightsInOrder({ parameters: { embed, layers, head }, classOf }: Facts): readonly ParameterView[] {
  return [...embed, ...classOf.flatMap((kind) => layers[kind]?.weights ?? []), ...head];
}
