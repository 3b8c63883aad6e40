import { describe, expect, test } from 'vitest';
import { mulberry32 } from '../../src/address/layout.js';
import { headGroupCounts } from '../../src/spec/parallelLayout.js';
import type { Strategy } from '../../src/spec/strategy.js';
import { estimator, type Evaluator, memoryEstimator } from '../../src/strategy/evaluator.js';
import { findStrategy } from '../../src/strategy/findStrategy.js';
import { settingOf } from '../../src/strategy/setting.js';
import type { Bend } from '../spec/inputs.js';
import { inputOf, MODEL, SEED } from './searchInputs.js';

/** As many keys as queries, which is where groups of them gain most. */
const OWN_KEYS = { ...MODEL, num_key_value_heads: 16 };

/** The choice, its seconds where it fits, and every strategy whose memory was asked for on the way. */
function choose(bend: Bend, evaluate: Evaluator = estimator()) {
  const input = inputOf(bend);
  const looked: Strategy[] = [];
  const memory: Evaluator['memory'] = (setting, strategy) => {
    looked.push(strategy);
    return evaluate.memory(setting, strategy);
  };
  const found = findStrategy(input, { ...evaluate, memory });
  const seconds = found.memory.fits ? evaluate.seconds(settingOf(input), found.strategy) : Number.POSITIVE_INFINITY;
  return { ...found, looked, seconds };
}

/** The same with all heads at once. */
const atOnce = ({ run, ...bend }: Bend) => choose({ ...bend, run: { ...run, headGroups: 1 } });

const isInGroups = ({ headGroups }: Strategy): boolean => headGroups !== undefined;

describe('auto attends to heads in groups', () => {
  const tight = { model: OWN_KEYS, run: { seqLen: '512K', numChunks: 64 }, cluster: { gpus: 1, hbmBytes: '20G', hostBytes: '24G' } };

  test('where that leaves room to compute less', () => {
    const [chosen, whole] = [choose(tight), atOnce(tight)];
    expect(chosen.memory.fits && whole.memory.fits).toBe(true);
    expect(isInGroups(chosen.strategy)).toBe(true);
    expect(chosen.seconds).toBeLessThan(0.9 * whole.seconds);
  });

  test('where nothing fits else', () => {
    const less = { ...tight, cluster: { ...tight.cluster, hostBytes: '18G' } };
    expect(atOnce(less).memory.fits).toBe(false);
    const { memory, strategy } = choose(less, memoryEstimator());
    expect(memory.fits).toBe(true);
    expect(isInGroups(strategy)).toBe(true);
  });

  test.each<[string, Bend]>([
    ['one key/value head a rank', { cluster: { hbmBytes: '11G', hostBytes: '5G' } }],
    ['room for everything', { cluster: { gpus: 1 } }],
    ['a number that the user fixed', { run: { headGroups: 1 }, cluster: { gpus: 1, hbmBytes: '11G', hostBytes: '12G' } }],
    ['ranges that the user named', { run: { strategy: { layers: [{ layers: [0, 6] }] } }, cluster: { gpus: 1 } }],
  ])('and looks at none with %s', (_, bend) => {
    expect(choose(bend).looked.filter(isInGroups)).toEqual([]);
  });

  test('and chooses as before where they do not pay', () => {
    const bend = { cluster: { gpus: 2, hbmBytes: '11G', hostBytes: '8G' } };
    expect(choose(bend).strategy).toEqual(atOnce(bend).strategy);
  });
});

describe(`no number of groups that is forced is faster than auto's, seed ${SEED}`, { tags: ['full'] }, () => {
  const random = mulberry32(SEED);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  /** What else a user may fix. */
  const fixed = pick<object>([
    {},
    { numChunks: pick([16, 24, 32]) },
    { segmentLayers: pick([2, 3]), kvTileChunks: pick([1, 2]) },
    { numTokenTiles: pick([2, 3]), strategy: { hiddenGradients: pick(['hbm', 'host']) } },
  ]);
  test.each([
    ['keys of their own', OWN_KEYS, 1],
    ['shared keys', MODEL, 2],
  ] as const)('%s', (_, model, gpus) => {
    const cluster = { gpus, hbmBytes: pick(['14G', '16G', '20G', '24G']), hostBytes: pick(['16G', '20G', '24G', '40G']) };
    const forced = (more: object) => choose({ model, cluster, run: { seqLen: '512K', ...fixed, ...more } });
    const auto = forced({});
    for (const headGroups of headGroupCounts(settingOf(inputOf({ model, cluster })).layout)) {
      const { strategy, memory, seconds } = forced({ headGroups });
      const text = JSON.stringify({ cluster, fixed, auto: auto.strategy, forced: strategy });
      expect(auto.memory.fits || !memory.fits, text).toBe(true);
      if (memory.fits) expect(auto.seconds / seconds, text).toBeLessThanOrEqual(1.005);
    }
  });
});
