import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { kvCopies, ownHeads, ownKvHeads, PADDED_HEAD, paddedHeads, parallelLayout } from '../../src/spec/parallelLayout.js';
import { errorOf } from './inputs.js';

const layoutOf = (numHeads: number, numKvHeads: number, sequenceParallelSize: number) =>
  parallelLayout({ numHeads, numKvHeads }, { sequenceParallelSize, dataParallelSize: 1 }, 8);

/** `0 1/0 | 2 3/0`: query heads / key/value heads of each rank, `-` for a padded one. */
function headsText(numHeads: number, numKvHeads: number, ranks: number): string {
  const { query, keyValue } = layoutOf(numHeads, numKvHeads, ranks).heads;
  const text = (heads: readonly number[] = []) => heads.map((head) => (head === PADDED_HEAD ? '-' : head)).join(' ');
  return query.map((heads, rank) => `${text(heads)}/${text(keyValue[rank])}`).join(' | ');
}

describe('heads of each rank', () => {
  test.each([
    [8, 4, 2, '0 1 2 3/0 1 | 4 5 6 7/2 3'],
    [8, 2, 1, '0 1 2 3 4 5 6 7/0 1'],
    [8, 2, 4, '0 1/0 | 2 3/0 | 4 5/1 | 6 7/1'],
    [8, 1, 4, '0 1/0 | 2 3/0 | 4 5/0 | 6 7/0'],
    [8, 2, 8, '0/0 | 1/0 | 2/0 | 3/0 | 4/1 | 5/1 | 6/1 | 7/1'],
    [12, 4, 6, '0 1/0 0 | 2 3/0 1 | 4 5/1 1 | 6 7/2 2 | 8 9/2 3 | 10 11/3 3'],
    [6, 6, 4, '0 1/0 1 | 2 3/2 3 | 4 5/4 5 | - -/- -'],
    [6, 2, 4, '0 1/0 | 2 -/0 | 3 4/1 | 5 -/1'],
    [16, 4, 6, '0 1 2/0 0 0 | 3 4 5/0 1 1 | 6 7 8/1 1 2 | 9 10 11/2 2 2 | 12 13 14/3 3 3 | 15 - -/3 - -'],
    [24, 4, 5, '0 1 2 3 4/0 0 0 0 0 | 5 6 7 8 9/0 1 1 1 1 | 10 11 12 13 14/1 1 2 2 2 | 15 16 17 18 19/2 2 2 3 3 | 20 21 22 23 -/3 3 3 3 -'],
    [24, 4, 6, '0 1 2 3/0 0 | 4 5 6 7/0 1 | 8 9 10 11/1 1 | 12 13 14 15/2 2 | 16 17 18 19/2 3 | 20 21 22 23/3 3'],
  ])('%i query and %i key/value heads on %i ranks', (numHeads, numKvHeads, ranks, heads) => {
    expect(headsText(numHeads, numKvHeads, ranks)).toBe(heads);
  });

  test('Llama-3-8B on 32 ranks: every key/value head on four of them', () => {
    const layout = layoutOf(32, 8, 32);
    expect([ownHeads(layout), ownKvHeads(layout), kvCopies(layout), paddedHeads(layout)]).toEqual([1, 1, 4, 0]);
    expect(layout.heads.keyValue.flat()).toEqual(Array.from({ length: 32 }, (_, rank) => Math.floor(rank / 4)));
  });

  test('Qwen2.5-7B on 8 ranks: groups of seven are split into four and three', () => {
    const layout = layoutOf(28, 4, 8);
    expect(layout.heads.query.slice(0, 3)).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, PADDED_HEAD],
      [7, 8, 9, 10],
    ]);
    expect([ownHeads(layout), ownKvHeads(layout), kvCopies(layout), paddedHeads(layout)]).toEqual([4, 1, 2, 4]);
  });

  test('shared out, nothing is copied or padded', () => {
    const layout = layoutOf(32, 8, 8);
    expect([ownHeads(layout), ownKvHeads(layout), kvCopies(layout), paddedHeads(layout)]).toEqual([4, 1, 1, 0]);
  });

  test('for any model and size each head is computed once, with its own keys and values', () => {
    const models = fc.record({ group: fc.integer({ min: 1, max: 12 }), numKvHeads: fc.integer({ min: 1, max: 16 }) });
    fc.assert(
      fc.property(models, fc.nat(), ({ group, numKvHeads }, seed) => {
        const numHeads = group * numKvHeads;
        const ranks = 1 + (seed % numHeads);
        const layout = layoutOf(numHeads, numKvHeads, ranks);
        const { query, keyValue } = layout.heads;
        const [own, ownKv] = [ownHeads(layout), ownKvHeads(layout)];
        expect([query.length, keyValue.length]).toEqual([ranks, ranks]);
        expect(new Set(query.map(({ length }) => length))).toEqual(new Set([Math.ceil(numHeads / ranks)]));
        expect(new Set(keyValue.map(({ length }) => length))).toEqual(new Set([ownKv]));
        expect(own % ownKv).toBe(0);
        const real = query.flat().filter((head) => head !== PADDED_HEAD);
        expect(real.sort((a, b) => a - b)).toEqual(Array.from({ length: numHeads }, (_, head) => head));
        for (const [rank, heads] of query.entries()) {
          for (const [j, head] of heads.entries()) {
            const met = keyValue[rank]?.[Math.floor(j / (own / ownKv))];
            if (head !== PADDED_HEAD) expect(met).toBe(Math.floor(head / group));
          }
          for (const [entry, kvHead] of (keyValue[rank] ?? []).entries()) {
            const users = heads.slice((entry * own) / ownKv, ((entry + 1) * own) / ownKv);
            expect(kvHead === PADDED_HEAD).toBe(users.every((head) => head === PADDED_HEAD));
          }
        }
        expect(paddedHeads(layout)).toBe(ranks * own - numHeads);
        if (numKvHeads % ranks === 0) expect(kvCopies(layout)).toBe(1);
      }),
    );
  });

  test('more ranks than query heads, and unequal groups, are refused', () => {
    expect(errorOf(() => layoutOf(8, 2, 9))).toMatchObject({
      code: 'too-many-ranks-for-heads',
      hint: 'use a sequenceParallelSize of at most 8',
    });
    expect(errorOf(() => layoutOf(8, 3, 2)).code).toBe('invalid-value');
  });
});

describe('ranks that share a sequence', () => {
  const groupsOf = (sequenceParallelSize: number, dataParallelSize: number, ranksPerNode: number) =>
    parallelLayout({ numHeads: 64, numKvHeads: 8 }, { sequenceParallelSize, dataParallelSize }, ranksPerNode).sequenceGroups;

  test('are consecutive: inside a node, or whole nodes', () => {
    expect(groupsOf(2, 4, 4)).toEqual([
      [0, 1],
      [2, 3],
      [4, 5],
      [6, 7],
    ]);
    expect(groupsOf(4, 2, 2)).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7],
    ]);
  });

  test('larger than a node and no multiple of it, they are consecutive still', () => {
    expect(groupsOf(6, 2, 4)).toEqual([
      [0, 1, 2, 3, 4, 5],
      [6, 7, 8, 9, 10, 11],
    ]);
  });

  test('a size that does not divide a node leaves ranks over, which form groups across nodes', () => {
    expect(groupsOf(3, 4, 4)).toEqual([
      [0, 1, 2],
      [3, 7, 11],
      [4, 5, 6],
      [8, 9, 10],
    ]);
  });

  test('a last node that is not full leaves its own ranks over', () => {
    expect(groupsOf(3, 3, 7)).toEqual([
      [0, 1, 2],
      [3, 4, 5],
      [6, 7, 8],
    ]);
  });

  test('every rank is in one group, and as many groups as can be are inside a node', () => {
    const small = fc.integer({ min: 1, max: 12 });
    fc.assert(
      fc.property(small, small, small, (size, replicas, ranksPerNode) => {
        const groups = groupsOf(size, replicas, ranksPerNode);
        expect(groups.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: size * replicas }, (_, rank) => rank));
        expect(groups.every((group) => group.length === size && group.every((rank, i) => i === 0 || rank > (group[i - 1] ?? 0)))).toBe(
          true,
        );
        const inside = groups.filter((group) => new Set(group.map((rank) => Math.floor(rank / ranksPerNode))).size === 1);
        const nodes = Array.from({ length: Math.ceil((size * replicas) / ranksPerNode) }, (_, node) =>
          Math.min(ranksPerNode, size * replicas - node * ranksPerNode),
        );
        expect(inside.length).toBe(nodes.reduce((sum, ranks) => sum + Math.floor(ranks / size), 0));
      }),
    );
  });
});
