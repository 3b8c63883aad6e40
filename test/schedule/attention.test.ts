import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AttentionKernel, can, kernelNamed } from '../../src/catalog/kernels.js';
import type { LogicalSection, LogicalSchedule } from '../../src/schedule/logical.js';
import { logicalSchedule } from '../../src/schedule/policies/index.js';
import { RECOMPUTE } from '../../src/spec/strategy.js';
import { type Small, smallContext } from './context.js';
import { type Final, type Followed, type Part, follow, sees } from './pairs.js';

interface Case {
  readonly numChunks: number;
  readonly chunkTokens: number;
  readonly window: number | null;
  readonly small: Small;
}

/** Chunks, tiles, windows, places and orders of all sizes; a kernel that has what the layer needs, or a little more. */
const anyCase: fc.Arbitrary<Case> = fc
  .record({
    numChunks: fc.integer({ min: 1, max: 7 }),
    chunkTokens: fc.constantFrom(2, 4, 6),
    window: fc.option(fc.integer({ min: 1, max: 30 }), { nil: null }),
    rectangle: fc.boolean(),
    hasWindow: fc.boolean(),
    kvTileChunks: fc.integer({ min: 1, max: 4 }),
    keyValues: fc.constantFrom('hbm', 'host'),
    keyValueGradients: fc.constantFrom('hbm', 'host'),
    attentionOutput: fc.constantFrom(RECOMPUTE, 'hbm', 'host'),
    isOuter: fc.boolean(),
  })
  .map(({ numChunks, chunkTokens, window, rectangle, hasWindow, kvTileChunks, isOuter, ...places }) => ({
    numChunks,
    chunkTokens,
    window,
    small: {
      ...places,
      ...(isOuter ? { backwardOrder: 'keyValueOuterAscending', keyValueGradients: 'hbm' } : {}),
      chunkTokens,
      localChunkTokens: chunkTokens / 2,
      kvTileChunks: Math.min(kvTileChunks, numChunks),
      masks: { rectangle, window: hasWindow || window !== null },
      model: { numLayers: 1, windows: [window] },
    },
  }));

describe('attention', () => {
  it('random chunks, tiles, windows and places: every query meets every key that it sees once, forward and backward', () => {
    fc.assert(
      fc.property(anyCase, (one) => {
        const { forward, backward } = followed(one);
        for (const final of [...forward.finals, ...backward.finals]) expect(missing(final, one), drawn(final)).toEqual([]);
        const kinds = (finals: readonly Final[]): ReadonlySet<string> => new Set(finals.map(({ what }) => what));
        expect(kinds(forward.finals)).toEqual(new Set(['o']));
        expect(kinds(backward.finals)).toEqual(new Set(['o', 'dq', 'dk', 'dv']));
        expect(new Set(backward.finals.map(({ what, chunk }) => `${what}${chunk}`)).size).toBe(4 * one.numChunks);
      }),
      { numRuns: 500 },
    );
  });

  it('random: no op is without work, and each has a mask that the kernel has', () => {
    fc.assert(
      fc.property(anyCase, (one) => {
        const { masks } = smallContext('auto', one.numChunks, one.small);
        const kernel: AttentionKernel = { ...kernelNamed('reference'), ...masks };
        for (const part of parts(one)) {
          const square = part.kv.start === part.tokens.start && part.kv.end === part.tokens.end;
          expect(can(kernel, part.mask, { square })).toBe(true);
          expect(pairsOf([part]).size).toBeGreaterThan(0);
          if (part.mask.kind === 'window') expect(pairsOf([part]).size).toBeLessThan(pairsOf([{ ...part, mask: { kind: 'full' } }]).size);
          if (one.window !== null) expect(firstChunkSeen(part, one)).toBe(part.kv.start / one.chunkTokens);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('a window leaves out chunks before it: the number of ops and of keys does not grow with the sequence', () => {
    const keys = (numChunks: number): number =>
      parts({ ...WINDOWED, numChunks })
        .filter(({ tokens }) => tokens.end === numChunks * WINDOWED.chunkTokens)
        .reduce((sum, { kv }) => sum + kv.end - kv.start, 0);
    expect(keys(4)).toBe(2 * 3 * WINDOWED.chunkTokens);
    expect(keys(40)).toBe(keys(4));
  });

  it('a window that sees the whole sequence is none', () => {
    const masks = (window: number | null): unknown =>
      parts({ ...WINDOWED, numChunks: 4, window, small: { ...WINDOWED.small, model: { numLayers: 1, windows: [window] } } });
    expect(masks(4 * WINDOWED.chunkTokens)).toEqual(masks(null));
    expect(masks(4 * WINDOWED.chunkTokens - 1)).not.toEqual(masks(null));
  });

  it('refuses a window that the kernel does not have', () => {
    const small: Small = { ...WINDOWED.small, masks: { rectangle: true, window: false } };
    expect(() => parts({ ...WINDOWED, numChunks: 4, small })).toThrow('the attention kernel has no sliding window');
  });

  it('attention starts with keys that every query sees: a partial result has no empty row to begin with', () => {
    fc.assert(
      fc.property(anyCase, (one) => {
        const { forward } = sections(one);
        const first = new Map<number, Part>();
        for (const part of partsOf(forward)) if (!first.has(part.tokens.start)) first.set(part.tokens.start, part);
        for (const part of first.values()) {
          const queries = [...pairsOf([part]).keys()].map((pair) => pair.split(' ')[0]);
          expect(new Set(queries).size).toBe(one.chunkTokens);
        }
      }),
    );
  });
});

const WINDOWED = {
  chunkTokens: 4,
  window: 8,
  numChunks: 4,
  small: { chunkTokens: 4, localChunkTokens: 2, masks: { rectangle: true, window: true }, model: { numLayers: 1, windows: [8] } },
} as const satisfies Case;

function sections({ numChunks, small }: Case): Record<'forward' | 'backward', LogicalSection> & { readonly logical: LogicalSchedule } {
  const logical = logicalSchedule(smallContext('auto', numChunks, small));
  const named = (name: string): LogicalSection => logical.sections.find((section) => section.name === name) as LogicalSection;
  return { logical, forward: named('layerForward'), backward: named('layerBackward') };
}

function followed(one: Case): Record<'forward' | 'backward', Followed> {
  const { logical, forward, backward } = sections(one);
  const done = follow(forward, logical, one.chunkTokens);
  return { forward: done, backward: follow(backward, logical, one.chunkTokens, done) };
}

/** What every attention op of the layer meets, forward then backward. */
function parts(one: Case): readonly Part[] {
  const { forward, backward } = sections(one);
  return [...partsOf(forward), ...partsOf(backward)];
}

function partsOf({ ops }: LogicalSection): readonly Part[] {
  return ops
    .filter(({ kind }) => kind === 'attn' || kind === 'attnBwd')
    .map(({ tokens, kv, attribute }) => ({ tokens, kv: kv ?? tokens, mask: attribute?.mask ?? { kind: 'full' } }));
}

/** How often each query met each key, as `query key`. */
function pairsOf(met: readonly Part[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const part of met) {
    for (let query = part.tokens.start; query < part.tokens.end; query++) {
      for (let key = part.kv.start; key < part.kv.end; key++) {
        if (sees(part, query, key)) counts.set(`${query} ${key}`, (counts.get(`${query} ${key}`) ?? 0) + 1);
      }
    }
  }
  return counts;
}

/** Pairs that a final value should be formed of once and is not, or the other way round. */
function missing({ what, chunk, parts: met }: Final, { numChunks, chunkTokens, window }: Case): readonly string[] {
  const own = (token: number): boolean => Math.floor(token / chunkTokens) === chunk;
  const counts = new Map(
    [...pairsOf(met)].filter(([pair]) => {
      const [query = 0, key = 0] = pair.split(' ').map(Number);
      return own(what === 'dk' || what === 'dv' ? key : query);
    }),
  );
  const wrong: string[] = [];
  for (let query = 0; query < numChunks * chunkTokens; query++) {
    for (let key = 0; key <= query; key++) {
      if (!own(what === 'dk' || what === 'dv' ? key : query) || (window !== null && query - key >= window)) continue;
      if (counts.get(`${query} ${key}`) !== 1) wrong.push(`${query} ${key}: ${counts.get(`${query} ${key}`) ?? 0} times`);
      counts.delete(`${query} ${key}`);
    }
  }
  return [...wrong, ...[...counts.keys()].map((pair) => `${pair}: not to be seen`)];
}

/** The first chunk of keys in which some query of the op sees a key. */
function firstChunkSeen(part: Part, { chunkTokens }: Case): number {
  const keys = [...pairsOf([part]).keys()].map((pair) => Number(pair.split(' ')[1]));
  return Math.floor(Math.min(...keys) / chunkTokens);
}

function drawn({ what, chunk }: Final): string {
  return `${what} of chunk ${chunk}`;
}
