import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { layoutSchedule, mulberry32, placeBuffers } from '../../src/address/layout.js';
import type { Op } from '../../src/schedule/op.js';
import type { Schedule } from '../../src/schedule/schedule.js';
import { verifySchedule } from '../../src/verify/verify.js';
import { EVERY_KIND, smallContext, smallSchedule } from '../schedule/context.js';
import { buffer, call, op, randomSchedule, scheduleOf, section } from './randomSchedule.js';
import { clobbered, issue, overlaps, races } from './timing.js';

const poolBytes = ({ pools }: Schedule, name: string): number => pools.find((pool) => pool.name === name)?.bytes ?? Number.NaN;

describe.each(EVERY_KIND)('%s', (_name, policy, numChunks, more) => {
  const schedule = smallSchedule(policy, numChunks, more);

  it('is legal for the verifier, compact and with a seed', () => {
    const { model, parameters } = smallContext(policy, numChunks, more);
    const { numLayers, windows, code, tieWordEmbeddings: tied } = model;
    const { classOf } = code;
    for (const placed of [layoutSchedule(schedule), layoutSchedule(schedule, { seed: 3 })]) {
      expect(verifySchedule({ ...placed, numLayers, windows, parameters, classOf, tied })).toEqual([]);
    }
  });

  it.each([undefined, 1])('seed %o: nothing that shares bytes is used at the same time, and nothing is lost', (seed) => {
    const placed = layoutSchedule(schedule, seed === undefined ? {} : { seed });
    expect(badAddresses(placed)).toEqual([]);
    expect(faults(placed, seed ?? 0)).toEqual([]);
  });
});

describe('random schedules', () => {
  it('nothing that shares bytes is used at the same time, and nothing is lost, whatever the timing and the seed', () => {
    fc.assert(
      fc.property(randomSchedule(), fc.nat(), fc.option(fc.nat(), { nil: undefined }), (schedule, timing, seed) => {
        const placed = layoutSchedule(schedule, seed === undefined ? {} : { seed });
        expect(badAddresses(placed)).toEqual([]);
        expect(faults(placed, timing)).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });
});

describe('which buffers share an address', () => {
  const touch = (id: number, stream: string, target: number, waits: readonly number[]): Op => op(id, stream, [target], waits);
  const share = (...sections: readonly (readonly Op[])[]): boolean => {
    const named = sections.map((ops, n) => section(`section${n}`, ops));
    const placed = placeBuffers(
      scheduleOf(
        [buffer(0), buffer(1)],
        named,
        named.map(({ name }) => call(name)),
      ),
    );
    return poolBytes(placed, 'hbm') === 1024;
  };

  it('inside a call a wait decides, also by way of other streams', () => {
    expect(share([touch(0, 'compute', 0, []), touch(1, 'h2d', 1, [])])).toBe(false);
    expect(share([touch(0, 'compute', 0, []), touch(1, 'h2d', 1, [0])])).toBe(true);
    expect(share([touch(0, 'compute', 0, []), touch(1, 'compute', 1, [])])).toBe(true);
    expect(share([touch(0, 'compute', 0, []), touch(1, 'h2d', 1, [0]), touch(2, 'compute', 0, [])])).toBe(false);
    expect(share([touch(0, 'd2h', 0, []), op(1, 'comm', [], [0]), op(2, 'comm', []), touch(3, 'h2d', 1, [2])])).toBe(true);
    expect(share([touch(0, 'd2h', 0, []), op(1, 'comm', [], [0]), op(2, 'compute', []), touch(3, 'h2d', 1, [2])])).toBe(false);
  });

  it('those of different sections always may: entry masks order them', () => {
    expect(share([touch(0, 'compute', 0, [])], [touch(0, 'h2d', 1, [])])).toBe(true);
    expect(share([touch(0, 'compute', 0, [])], [touch(0, 'h2d', 1, [])], [touch(0, 'comm', 0, []), touch(1, 'compute', 1, [])])).toBe(
      false,
    );
  });

  it('one of step scope keeps its bytes through the calls between its first and its last', () => {
    const buffers = [buffer(0, { scope: 'step' }), buffer(1), buffer(2)];
    const sections = ['first', 'during', 'after'].map((name, n) => section(name, [op(0, 'compute', [n])]));
    const offsets = (...calls: readonly string[]): readonly number[] =>
      placeBuffers(
        scheduleOf(
          buffers,
          sections,
          calls.map((name) => call(name)),
        ),
      ).buffers.map(({ offset }) => offset);
    expect(offsets('first', 'during', 'first', 'after')).toEqual([0, 1024, 0]);
    expect(offsets('first', 'during', 'after')).toEqual([0, 0, 0]);
    expect(offsets('during', 'first', 'after', 'first')).toEqual([0, 0, 1024]);
  });

  it('two of step scope where one is done before the other begins', () => {
    const buffers = [buffer(0, { scope: 'step' }), buffer(1, { scope: 'step' })];
    const sections = [0, 1].map((n) => section(`section${n}`, [op(0, 'compute', [n])]));
    const bytes = (...calls: readonly number[]): number =>
      poolBytes(
        placeBuffers(
          scheduleOf(
            buffers,
            sections,
            calls.map((n) => call(`section${n}`)),
          ),
        ),
        'hbm',
      );
    expect(bytes(0, 0, 1, 1)).toBe(1024);
    expect(bytes(0, 1, 0)).toBe(2048);
  });
});

/** What goes wrong in two micro-steps: whatever the timing, in a random one, and because two buffers hold something in the same bytes. */
function faults(placed: Schedule, timing: number): readonly string[] {
  const queues = issue(placed, 'atEntry');
  const late = issue(placed, 'beforeFirstOp');
  return [
    ...clobbered(placed, queues),
    ...races(placed, queues),
    ...races(placed, late),
    ...overlaps(placed, queues, mulberry32(timing)),
    ...overlaps(placed, late, mulberry32(timing)),
  ];
}

/** Addresses that are unaligned or outside their arena; what a file's pages are copied from and to is aligned as they are. */
function badAddresses({ buffers, pools }: Schedule): readonly string[] {
  const bytes = new Map(pools.map((pool) => [pool.name, pool.bytes]));
  return buffers
    .filter(({ offset, pool, instances, instanceBytes, name }) => {
      const alignment = pool === 'hbm' ? 512 : 4096;
      const isPage = pool === 'disk' || (pool === 'host' && name.endsWith('@disk.host'));
      const end = offset + instances * instanceBytes;
      return offset < 0 || offset % alignment !== 0 || (isPage && instanceBytes % 4096 !== 0) || end > (bytes.get(pool) ?? 0);
    })
    .map(({ name, offset }) => `${name} at ${offset}`);
}

describe('placeBuffers', () => {
  it('reuses bytes: smaller than all buffers side by side, and than any random layout', () => {
    const schedule = smallSchedule('fpdt', 4);
    const placed = placeBuffers(schedule);
    expect(poolBytes(placed, 'hbm')).toBeLessThan(0.75 * sideBySide(schedule, 'hbm'));
    for (const seed of [1, 2, 3])
      expect(poolBytes(placeBuffers(schedule, { seed }), 'hbm')).toBeGreaterThanOrEqual(poolBytes(placed, 'hbm'));
  });

  it('is the same for the same input and seed, and another one for another seed', () => {
    const schedule = smallSchedule('auto', 4);
    expect(placeBuffers(schedule)).toEqual(placeBuffers(schedule));
    expect(placeBuffers(schedule, { seed: 7 })).toEqual(placeBuffers(schedule, { seed: 7 }));
    expect(placeBuffers(schedule, { seed: 7 }).buffers).not.toEqual(placeBuffers(schedule, { seed: 8 }).buffers);
  });

  it('changes nothing but addresses and the bytes of pools', () => {
    const schedule = smallSchedule('fpdt', 3, { attentionOutput: 'disk' });
    const { buffers, pools, ...rest } = placeBuffers(schedule);
    expect({
      ...rest,
      buffers: buffers.map((buffer) => ({ ...buffer, offset: -1 })),
      pools: pools.map((pool) => ({ ...pool, bytes: 0 })),
    }).toEqual(schedule);
  });

  it('a pool that nothing uses has no bytes', () => {
    const placed = placeBuffers(smallSchedule('auto', 2));
    expect([poolBytes(placed, 'host'), poolBytes(placed, 'disk')]).toEqual([0, 0]);
  });
});

function sideBySide({ buffers }: Schedule, pool: string): number {
  return buffers.filter((buffer) => buffer.pool === pool).reduce((sum, { instances, instanceBytes }) => sum + instances * instanceBytes, 0);
}
