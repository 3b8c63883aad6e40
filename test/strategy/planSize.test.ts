import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type PolicyName, RECOMPUTE } from '../../src/spec/strategy.js';
import { MAX_OPS, estimateOps, refuseTooManyOps } from '../../src/strategy/planSize.js';
import { EVERY_KIND, PLACES, PLACEMENTS, type Small, type SmallRange, smallContext, smallSchedule } from '../schedule/context.js';
import { errorOf } from '../spec/inputs.js';

const numOps = (policy: PolicyName, numChunks: number, more: Small): number =>
  smallSchedule(policy, numChunks, more).sections.reduce((sum, { ops }) => sum + ops.length, 0);

function estimate(policy: PolicyName, numChunks: number, more: Small): number {
  const { model, parameters, strategy, rangeChunks } = smallContext(policy, numChunks, more);
  return estimateOps({ model, parameters, places: PLACES }, strategy, rangeChunks);
}

function expectClose(policy: PolicyName, numChunks: number, more: Small): void {
  const [real, estimated] = [numOps(policy, numChunks, more), estimate(policy, numChunks, more)];
  expect(estimated).toBeGreaterThanOrEqual(real);
  expect(estimated).toBeLessThanOrEqual(2 * real);
}

const ALONE = {
  keyValues: 'hbm',
  keyValueGradients: 'hbm',
  isOuter: false,
  isSegment: false,
  rebuiltOutput: 'host',
  rebuildsLast: false,
} as const;
const GROUPED = { hiddenGradients: 'host', rectangle: false, inGroups: true } as const;
/** Each group of heads has ops of its own on top: of many cases in which they were not all counted, one with outputs formed again and one with them kept. */
const COUNTED_SHORT = [
  {
    ...GROUPED,
    ranges: [{ ...ALONE, attentionOutput: RECOMPUTE, checkpoints: 'host' } as const],
    ...{ numChunks: 10, kvTileChunks: 2, prefetchDepth: 1, rangeChunks: 13 },
  },
  {
    ...({ ...GROUPED, hiddenGradients: 'hbm' } as const),
    ranges: [{ ...ALONE, attentionOutput: 'host', checkpoints: 'hbm' } as const],
    ...{ numChunks: 20, kvTileChunks: 4, prefetchDepth: 3, rangeChunks: 21 },
  },
];

describe('the estimate of ops is not below the real number, nor above twice that', () => {
  test.each(EVERY_KIND)('%s', (_name, policy, numChunks, more) => {
    for (const count of ['fpdt', 'auto'].includes(policy) ? [numChunks, 16] : [1]) expectClose(policy, count, more);
  });

  test('random places, ranges, tiles and kernels', () => {
    const anyRange = fc.record({
      keyValues: fc.constantFrom('hbm', 'host'),
      keyValueGradients: fc.constantFrom('hbm', 'host'),
      attentionOutput: fc.constantFrom(RECOMPUTE, 'hbm', 'host', 'disk'),
      checkpoints: fc.constantFrom('hbm', 'host', 'disk'),
      isOuter: fc.boolean(),
      isSegment: fc.boolean(),
      rebuiltOutput: fc.constantFrom(RECOMPUTE, 'hbm', 'host', 'disk'),
      rebuildsLast: fc.boolean(),
    });
    const anyCase = fc.record({
      ranges: fc.array(anyRange, { minLength: 1, maxLength: 3 }),
      numChunks: fc.integer({ min: 1, max: 24 }),
      kvTileChunks: fc.integer({ min: 1, max: 8 }),
      hiddenGradients: fc.constantFrom('hbm', 'host'),
      prefetchDepth: fc.integer({ min: 1, max: 3 }),
      rectangle: fc.boolean(),
      rangeChunks: fc.integer({ min: 1, max: 24 }),
      inGroups: fc.boolean(),
    });
    fc.assert(
      fc.property(anyCase, ({ ranges, rectangle, numChunks, kvTileChunks, inGroups, ...more }) => {
        const placed = ranges.map(({ isOuter, isSegment, ...places }, i): SmallRange => {
          const order = isOuter ? { backwardOrder: PLACEMENTS.fpdt.backwardOrder, keyValueGradients: 'hbm' } : {};
          return { ...places, ...order, layers: [2 * i, 2 * i + 2], segments: isSegment ? [2] : [1, 1] };
        });
        expectClose('auto', numChunks, {
          ...more,
          ranges: placed,
          kvTileChunks: Math.min(kvTileChunks, numChunks),
          ...(inGroups && ranges.every(({ isOuter }) => !isOuter) ? { headGroups: 2 } : {}),
          model: { numLayers: 2 * ranges.length, numHeads: 8, numKvHeads: 4 },
          masks: { rectangle, window: true },
        });
      }),
      { numRuns: 60, examples: COUNTED_SHORT.map((one): [typeof one] => [one]) },
    );
  });
});

describe('a plan of too many ops', () => {
  const sizeOf = (more: Small): Parameters<typeof refuseTooManyOps> => {
    const { model, parameters, strategy } = smallContext('fpdt', 512, more);
    return [{ model, parameters, places: PLACES }, strategy];
  };

  test('is refused with the tile of k, v that mends it', () => {
    expect(estimate('fpdt', 512, {})).toBeLessThan(MAX_OPS);
    const ranges: readonly SmallRange[] = [{ layers: [0, 2] }, { layers: [2, 4], checkpoints: 'hbm' }];
    const error = errorOf(() => refuseTooManyOps(...sizeOf({ ranges })));
    expect(error).toMatchObject({
      code: 'plan-too-large',
      hint: 'use kvTileChunks=4, which fetches 4 chunks of k, v at a time',
      details: { numChunks: 512, kvTileChunks: 1 },
    });
    expect(error.message).toMatch(/^the plan would have about \d{7} ops, more than the 2000000 that a plan may have$/);
    refuseTooManyOps(...sizeOf({ ranges, kvTileChunks: 4 }));
    expect(estimate('fpdt', 512, { ranges, kvTileChunks: 4 })).toBeLessThan(MAX_OPS);
  });

  test('is refused with fewer chunks where no tile helps', () => {
    const [setting, strategy] = sizeOf({});
    expect(errorOf(() => refuseTooManyOps(setting, { ...strategy, numChunks: 100_000 })).hint).toBe('use fewer chunks (numChunks)');
  });

  test('a window keeps the number of pairs down', () => {
    const [setting, strategy] = sizeOf({ masks: { rectangle: true, window: true }, model: { windows: [100, 100, 100, 100] } });
    refuseTooManyOps(setting, { ...strategy, numChunks: 10_000 });
  });
});
