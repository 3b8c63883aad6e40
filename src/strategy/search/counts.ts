/** Numbers of chunks that a search looks at. */
import type { RunSpec } from '../../spec/types.js';
import { chunkCounts } from '../candidates.js';

/** Those of the policy; between two of which one is the double of the other, the one in their middle too, if it is whole. */
export function countsToTry(run: RunSpec): readonly number[] {
  const counts = chunkCounts(run);
  return counts.flatMap((count, i) => (counts[i + 1] === 2 * count && count % 2 === 0 ? [count, 1.5 * count] : [count]));
}
