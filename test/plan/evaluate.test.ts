import { describe, expect, test } from 'vitest';
import { candidates } from '../../src/chunk/candidates.js';
import { buildStrategy, estimateMemory } from '../../src/plan/evaluate.js';
import { specs } from '../spec/inputs.js';

const DEPTHS = [1, 2, 3, 4] as const;
const SEGMENTS = [1, 2] as const;
const CASES = DEPTHS.flatMap((prefetchDepth) => SEGMENTS.map((segmentLayers) => [prefetchDepth, segmentLayers] as const));

/** Every placement of a policy, with this many chunks of 512 tokens. */
function placements(policy: 'fpdt' | 'auto', numChunks: number, prefetchDepth: number, segmentLayers: number) {
  const input = specs({ cluster: { gpu: 'a100-80gb' }, run: { seqLen: 512 * numChunks, numChunks, policy, prefetchDepth, segmentLayers } });
  return { input: { ...input, deepspeed: input.deepspeed.config }, strategies: candidates(input).flat() };
}

// With 4 ranks, 3 slots of all tokens have as many rows as 12 slots of a rank's own: a ring must not be taken for a whole sequence.
describe('estimateMemory equals the memory of the full schedule', () => {
  test.each(CASES)('prefetch depth %i, segments of %i', (prefetchDepth, segmentLayers) => {
    for (const policy of ['fpdt', 'auto'] as const) {
      for (const numChunks of [1, 6, 9, 13, 24]) {
        const { input, strategies } = placements(policy, numChunks, prefetchDepth, segmentLayers);
        for (const strategy of strategies) expect(estimateMemory(input, strategy)).toEqual(buildStrategy(input, strategy).memory);
      }
    }
  });
});
