import { describe, expect, it } from 'vitest';
import type { Strategy } from '../../src/chunk/strategy.js';
import { buildSchedule } from '../../src/schedule/build.js';
import { sectionToText } from '../../src/schedule/text.js';
import type { PolicyName } from '../../src/spec/types.js';
import { smallContext } from './context.js';

const CASES: readonly (readonly [string, PolicyName, number, Partial<Strategy>])[] = [
  ['ulysses', 'ulysses', 1, {}],
  ['fpdt', 'fpdt', 3, {}],
  ['auto', 'auto', 3, {}],
  ['auto-segment2-host', 'auto', 2, { segmentLayers: 2, attentionOutput: 'host', checkpoints: 'host' }],
];

describe('op text of each policy', () => {
  it.each(CASES)('%s is as it was', async (name, policy, numChunks, more) => {
    const { schedule, buffers } = buildSchedule(smallContext(policy, numChunks, more), () => 0);
    const text = Object.values(schedule)
      .map((section) => sectionToText(section, buffers))
      .join('\n\n');
    await expect(`${text}\n`).toMatchFileSnapshot(`../golden/${name}.txt`);
  });
});
