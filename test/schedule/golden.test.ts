import { describe, expect, it } from 'vitest';
import { layoutSchedule } from '../../src/address/layout.js';
import { programToText } from '../../src/schedule/programText.js';
import { sectionToText } from '../../src/schedule/text.js';
import { RECOMPUTE } from '../../src/spec/strategy.js';
import type { PolicyName } from '../../src/spec/types.js';
import { type Small, smallSchedule } from './context.js';

const CASES: readonly (readonly [string, PolicyName, number, Small])[] = [
  ['ulysses', 'ulysses', 1, {}],
  ['fpdt', 'fpdt', 3, {}],
  ['fpdt-kv-tiles', 'fpdt', 4, { kvTileChunks: 2, masks: { rectangle: true, window: true } }],
  ['auto', 'auto', 3, {}],
  ['auto-segment2-host', 'auto', 2, { segmentLayers: 2, attentionOutput: 'host', checkpoints: 'host' }],
  ['fpdt-segment3-rebuilt', 'fpdt', 2, { segmentLayers: 3, rebuiltOutput: 'hbm' }],
  ['fpdt-segment3-all-rebuilt', 'fpdt', 2, { segmentLayers: 3, rebuiltOutput: 'host', rebuildsLast: true }],
  [
    'auto-internals',
    'auto',
    2,
    {
      ranges: [
        { layers: [0, 2], internals: 'hbm' },
        { layers: [2, 4], internals: 'host' },
      ],
    },
  ],
  [
    'auto-ranges-disk',
    'auto',
    2,
    {
      hiddenGradients: 'host',
      ranges: [
        { layers: [0, 2], checkpoints: 'disk', attentionOutput: 'disk', segments: [2] },
        { layers: [2, 4], attentionOutput: RECOMPUTE, keyValues: 'host', keyValueGradients: 'host' },
      ],
    },
  ],
];

describe('op text of each policy', () => {
  it.each(CASES)('%s is as it was', async (name, policy, numChunks, more) => {
    const schedule = layoutSchedule(smallSchedule(policy, numChunks, more));
    const { sections, programs } = schedule;
    const text = [...sections.map((section) => sectionToText(section, schedule)), programToText(programs.train, schedule)];
    await expect(`${text.join('\n\n')}\n`).toMatchFileSnapshot(`../golden/${name}.txt`);
  });
});
