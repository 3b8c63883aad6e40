import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Access, Op } from '../../src/schedule/op.js';
import { type Unordered, addWaits } from '../../src/schedule/passes/addWaits.js';

type Group = 'reads' | 'writes' | 'accumulates';

describe('addWaits', () => {
  it('random ops: whatever conflicts is ordered', () => {
    fc.assert(
      fc.property(randomOps(), (ops) => {
        expect(unordered(addWaits(ops))).toEqual([]);
      }),
      { numRuns: 1000 },
    );
  });

  it('random ops: no wait could be left out', () => {
    fc.assert(
      fc.property(randomOps(), (ops) => {
        const ordered = addWaits(ops);
        for (const op of ordered) {
          for (const wait of op.waits) {
            const without = ordered.map((other) => (other === op ? { ...op, waits: op.waits.filter((id) => id !== wait) } : other));
            expect(unordered(without)).not.toEqual([]);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it('waits for the last reader of each stream before it overwrites, and for nobody that only reads what it reads', () => {
    const ops = [
      op(0, 'compute', { writes: [access(0, 0, 4)] }),
      op(1, 'd2h', { reads: [access(0, 0, 2)] }),
      op(2, 'd2h', { reads: [access(0, 0, 2)] }),
      op(3, 'comm', { reads: [access(0, 2, 4)] }),
      op(4, 'h2d', { writes: [access(0, 0, 4)] }),
    ];
    expect(addWaits(ops).map(({ waits }) => waits)).toEqual([[], [0], [], [0], [2, 3]]);
  });

  it('what different parameters name differs, and so do rows and instances', () => {
    const ops = [
      op(0, 'compute', { writes: [access(0, 0, 2)] }),
      op(1, 'comm', { writes: [access(0, 2, 4)] }),
      op(2, 'h2d', { writes: [access(0, 0, 2, 1)] }),
      op(3, 'd2h', { writes: [access(0, 0, 2, 0, 0)] }),
      op(4, 'read', { writes: [access(0, 0, 2, 0, 1)] }),
      op(5, 'write', { accumulates: [access(0, 1, 3, 0, 1)] }),
    ];
    expect(addWaits(ops).map(({ waits }) => waits)).toEqual([[], [], [], [], [], [4]]);
  });
});

/** Pairs of ops that touch common rows, one changing them, of which neither surely comes first. */
function unordered(ops: readonly Op[]): readonly string[] {
  const before = completeBefore(ops);
  return ops.flatMap((op) =>
    ops
      .slice(0, op.id)
      .filter((other) => !before[op.id]?.has(other.id) && conflict(op, other))
      .map((other) => `${other.id} and ${op.id}`),
  );
}

/** For each op the ids of all ops that are complete when it starts. */
function completeBefore(ops: readonly Op[]): readonly ReadonlySet<number>[] {
  const found: Set<number>[] = [];
  for (const op of ops) {
    const previous = ops.slice(0, op.id).findLast(({ stream }) => stream === op.stream);
    const direct = [...op.waits, ...(previous === undefined ? [] : [previous.id])];
    found.push(new Set(direct.flatMap((id) => [id, ...(found[id] ?? [])])));
  }
  return found;
}

function conflict(a: Op, b: Op): boolean {
  const changes = (one: Op): readonly Access[] => [...one.writes, ...one.accumulates];
  const meet = (some: readonly Access[], others: readonly Access[]): boolean => some.some((x) => others.some((y) => overlap(x, y)));
  return meet(changes(a), [...changes(b), ...b.reads]) || meet(a.reads, changes(b));
}

function overlap(a: Access, b: Access): boolean {
  const same = a.buffer === b.buffer && a.param === b.param && a.index === b.index;
  return same && a.rows.start < b.rows.end && b.rows.start < a.rows.end;
}

function access(buffer: number, start: number, end: number, index = 0, param = -1): Access {
  return { buffer, rows: { start, end }, param, index };
}

function op(id: number, stream: string, views: Partial<Record<Group, readonly Access[]>>): Unordered {
  return {
    id,
    kind: 'zero',
    stream,
    tokens: { start: 0, end: 1 },
    reads: [],
    writes: [],
    accumulates: [],
    waits: [],
    scratchBytes: 0,
    ...views,
  };
}

/** Buffer 0 is used in chunks of two rows, the others in any rows. */
function randomOps(): fc.Arbitrary<readonly Unordered[]> {
  const anyAccess = fc
    .record({
      buffer: fc.nat(2),
      start: fc.nat(5),
      length: fc.integer({ min: 1, max: 4 }),
      index: fc.nat(1),
      param: fc.integer({ min: -1, max: 1 }),
    })
    .map(({ buffer, start, length, index, param }) =>
      buffer === 0 ? access(0, 2 * (start % 3), 2 * (start % 3) + 2, index, param) : access(buffer, start, start + length, index, param),
    );
  const anyAccesses = fc.array(anyAccess, { maxLength: 2 });
  const anyOp = fc.record({
    stream: fc.constantFrom('compute', 'comm', 'h2d', 'd2h'),
    reads: anyAccesses,
    writes: anyAccesses,
    accumulates: fc.array(anyAccess, { maxLength: 1 }),
  });
  return fc.array(anyOp, { maxLength: 20 }).map((ops) => ops.map(({ stream, ...views }, id) => op(id, stream, views)));
}
