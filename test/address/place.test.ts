import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type PlaceInput, placeByConflicts } from '../../src/address/place.js';

const randomInput: fc.Arbitrary<PlaceInput> = fc.integer({ min: 0, max: 24 }).chain((count) =>
  fc
    .record({
      sizes: fc.array(fc.oneof(fc.integer({ min: 0, max: 5000 }), fc.integer({ min: 0, max: 2 ** 45 })), {
        minLength: count,
        maxLength: count,
      }),
      pairs: fc.array(fc.boolean(), { minLength: count * count, maxLength: count * count }),
      order: fc.shuffledSubarray([...Array(count).keys()], { minLength: count }),
      alignment: fc.constantFrom(1, 8, 512, 1000),
    })
    .map(({ sizes, pairs, order, alignment }) => ({
      sizes: Float64Array.from(sizes),
      conflicts: Uint8Array.from(pairs, (_, cell) =>
        Number(pairs[cell] === true && pairs[(cell % count) * count + Math.floor(cell / count)] === true),
      ),
      order: Int32Array.from(order),
      alignment,
    })),
);

describe('placeByConflicts', () => {
  it('takes the smallest gap that fits, and shares bytes where nothing forbids it', () => {
    const all = (count: number): Uint8Array => new Uint8Array(count * count).fill(1);
    const input = (sizes: readonly number[], conflicts: Uint8Array): PlaceInput => ({
      sizes: Float64Array.from(sizes),
      conflicts,
      order: Int32Array.from(sizes.keys()),
      alignment: 512,
    });
    expect([...placeByConflicts(input([100, 600, 100], all(3)))]).toEqual([0, 512, 1536]);
    expect([...placeByConflicts(input([100, 600, 100], new Uint8Array(9)))]).toEqual([0, 0, 0]);
    // Item 3 is in no one's way but 0 and 2, which leave a gap of 1024 where 1 was.
    const conflicts = Uint8Array.from([0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0]);
    expect([...placeByConflicts(input([512, 1024, 512, 700], conflicts))]).toEqual([0, 512, 1536, 512]);
  });

  it('never overlaps conflicting items, and aligns all', () => {
    fc.assert(
      fc.property(randomInput, (input) => {
        const offsets = placeByConflicts(input);
        const count = input.sizes.length;
        offsets.forEach((offset, a) => {
          expect(offset % input.alignment).toBe(0);
          offsets.forEach((other, b) => {
            if (input.conflicts[a * count + b] !== 1 || a === b) return;
            const apart = offset + (input.sizes[a] ?? 0) <= other || other + (input.sizes[b] ?? 0) <= offset;
            expect(apart).toBe(true);
          });
        });
      }),
    );
  });
});
