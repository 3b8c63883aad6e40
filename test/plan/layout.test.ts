import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Layout, layoutBuffers, mulberry32, totalBytes } from '../../src/plan/layout.js';
import type { Schedule } from '../../src/plan/lifetimes.js';
import type { Buffer } from '../../src/schedule/buffer.js';
import { buildSchedule } from '../../src/schedule/build.js';
import { type Op, SECTIONS, STREAMS, type Section, type SectionName, type SectionPart } from '../../src/schedule/op.js';
import { verifySchedule } from '../../src/schedule/verify.js';
import { smallContext } from '../schedule/context.js';

const POLICIES = ['ulysses', 'fpdt', 'auto'] as const;
const built = (policy: (typeof POLICIES)[number], segmentLayers = 1) =>
  buildSchedule(smallContext(policy, policy === 'ulysses' ? 1 : 4, { segmentLayers }), () => 0);

describe('layoutBuffers', () => {
  it.each(POLICIES.flatMap((policy) => [1, 2].map((segmentLayers) => ({ policy, segmentLayers }))))(
    '$policy, segments of $segmentLayers: legal for the verifier and in every timing, compact and with any seed',
    ({ policy, segmentLayers }) => {
      const { buffers, schedule } = built(policy, segmentLayers);
      for (const seed of [undefined, 1, 2]) {
        const layout = layoutBuffers(buffers, schedule, seed === undefined ? {} : { seed });
        expect(verifySchedule({ schedule, ...layout, segmentLayers, numSegments: 4 / segmentLayers })).toEqual([]);
        expect(overlapsInTime(layout, schedule, mulberry32(seed ?? 0))).toEqual([]);
        expect(badAddresses(layout)).toEqual([]);
      }
    },
  );

  it('reuses bytes: smaller than all buffers side by side, and than any random layout', () => {
    const { buffers, schedule } = built('fpdt');
    const { arenas } = layoutBuffers(buffers, schedule);
    expect(arenas.hbm).toBeLessThan(0.75 * bytesOf(buffers, 'hbm'));
    for (const seed of [1, 2, 3]) expect(layoutBuffers(buffers, schedule, { seed }).arenas.hbm).toBeGreaterThanOrEqual(arenas.hbm);
  });

  it('is the same for the same input and seed, and another one for another seed', () => {
    const { buffers, schedule } = built('auto');
    expect(layoutBuffers(buffers, schedule)).toEqual(layoutBuffers(buffers, schedule));
    expect(layoutBuffers(buffers, schedule, { seed: 7 })).toEqual(layoutBuffers(buffers, schedule, { seed: 7 }));
    expect(layoutBuffers(buffers, schedule, { seed: 7 }).buffers).not.toEqual(layoutBuffers(buffers, schedule, { seed: 8 }).buffers);
  });

  it('a wait decides whether two buffers may share an address', () => {
    const buffers = [buffer(0, {}), buffer(1, {})];
    const touch = (id: number, stream: Op['stream'], target: number, waits: readonly number[]): Op => op(id, stream, [target], waits);
    const share = (ops: readonly Op[], parts?: readonly SectionPart[]): boolean =>
      layoutBuffers(buffers, scheduleOf(ops, parts ?? [{ layerSlot: 0, start: 0, end: ops.length }])).arenas.hbm === 1024;
    expect(share([touch(0, 'compute', 0, []), touch(1, 'h2d', 1, [])])).toBe(false);
    expect(share([touch(0, 'compute', 0, []), touch(1, 'h2d', 1, [0])])).toBe(true);
    expect(share([touch(0, 'compute', 0, []), touch(1, 'compute', 1, [])])).toBe(true);
    expect(share([touch(0, 'compute', 0, []), touch(1, 'h2d', 1, [0]), touch(2, 'compute', 0, [])])).toBe(false);
    const viaComm = [touch(0, 'd2h', 0, []), op(1, 'comm', [], [0]), op(2, 'comm', [], []), touch(3, 'h2d', 1, [2])];
    expect(share(viaComm)).toBe(true);
    const twoParts = [
      { layerSlot: 0, start: 0, end: 1 },
      { layerSlot: 1, start: 1, end: 2 },
    ];
    expect(share([touch(0, 'compute', 0, []), touch(1, 'h2d', 1, [])], twoParts)).toBe(true);
  });

  it('a buffer of step scope keeps its bytes through the sections between its first and last', () => {
    const held = buffer(0, { scope: 'step', sections: ['embedForward', 'lossForwardBackward'] });
    const during = buffer(1, { sections: ['layerForward'] });
    const after = buffer(2, { sections: ['layerBackward'] });
    const { buffers } = layoutBuffers([held, during, after], scheduleOf([], []));
    const [heldAt, duringAt, afterAt] = buffers.map(({ offset }) => offset);
    expect(duringAt).not.toBe(heldAt);
    expect(Math.min(heldAt ?? 0, duringAt ?? 0)).toBe(afterAt);
  });

  it('random schedules: nothing alive together overlaps, whatever the timing and the seed', () => {
    fc.assert(
      fc.property(randomSchedule(), fc.nat(), fc.option(fc.nat(), { nil: undefined }), ({ buffers, schedule }, timing, seed) => {
        const layout = layoutBuffers(buffers, schedule, seed === undefined ? {} : { seed });
        expect(badAddresses(layout)).toEqual([]);
        for (let run = 0; run < 5; run++) expect(overlapsInTime(layout, schedule, mulberry32(timing + run))).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

/** Addresses that are unaligned or outside their arena. */
function badAddresses({ buffers, arenas }: Layout): readonly string[] {
  return buffers
    .filter((item) => item.offset < 0 || item.offset % 512 !== 0 || item.offset + totalBytes(item) > arenas[item.pool])
    .map(({ name, offset }) => `${name} at ${offset}`);
}

/**
 * Brute force, apart from the layout's own lifetimes: gives every op a random duration, starts it as soon as its stream is
 * free and its waits are over, and looks for buffers with common bytes whose uses then overlap in time.
 */
function overlapsInTime({ buffers }: Layout, schedule: Schedule, random: () => number): readonly string[] {
  const alive: { readonly buffer: Buffer; readonly from: number; readonly to: number }[] = [];
  const sectionTimes = new Map<SectionName, readonly [number, number]>();
  let now = 0;
  for (const name of SECTIONS) {
    const start = now;
    for (const part of schedule[name].parts) now = runPart(schedule[name], part, now);
    now += 1;
    sectionTimes.set(name, [start, now]);
  }
  for (const item of buffers.filter(({ scope }) => scope === 'step')) {
    const times = item.sections.map((name) => sectionTimes.get(name) ?? [0, 0]);
    alive.push({ buffer: item, from: Math.min(...times.map(([from]) => from)), to: Math.max(...times.map(([, to]) => to)) });
  }
  return alive.flatMap((a, i) =>
    alive
      .slice(i + 1)
      .flatMap((b) =>
        a.buffer !== b.buffer && a.from < b.to && b.from < a.to && shareBytes(a.buffer, b.buffer)
          ? [`${a.buffer.name} and ${b.buffer.name}`]
          : [],
      ),
  );

  function runPart(section: Section, part: SectionPart, start: number): number {
    const ends = new Map<number, number>();
    const streamFree = new Map<string, number>();
    const uses = new Map<number, { from: number; to: number }>();
    for (const item of section.ops.slice(part.start, part.end)) {
      const from = Math.max(start, streamFree.get(item.stream) ?? 0, ...item.waits.map((wait) => ends.get(wait) ?? 0));
      const to = from + (random() < 0.3 ? 0.001 : random());
      ends.set(item.id, to);
      streamFree.set(item.stream, to);
      for (const access of [...item.reads, ...item.writes, ...item.accumulates]) {
        const use = uses.get(access.buffer) ?? { from, to };
        uses.set(access.buffer, { from: Math.min(use.from, from), to: Math.max(use.to, to) });
      }
    }
    for (const [id, { from, to }] of uses) {
      const item = buffers[id];
      if (item?.scope === 'section') alive.push({ buffer: item, from, to });
    }
    return Math.max(start, ...ends.values());
  }
}

function shareBytes(a: Buffer, b: Buffer): boolean {
  return a.pool === b.pool && a.offset < b.offset + totalBytes(b) && b.offset < a.offset + totalBytes(a);
}

function bytesOf(buffers: readonly Buffer[], pool: Buffer['pool']): number {
  return buffers.filter((item) => item.pool === pool).reduce((sum, item) => sum + totalBytes(item), 0);
}

function buffer(id: number, more: Partial<Buffer>): Buffer {
  return {
    id,
    name: `b${id}`,
    pool: 'hbm',
    dtype: 'float32',
    shape: [256],
    strides: [1],
    instances: 1,
    instanceBytes: 1024,
    offset: -1,
    sections: ['layerForward'],
    scope: 'section',
    ...more,
  };
}

function op(id: number, stream: Op['stream'], touched: readonly number[], waits: readonly number[]): Op {
  const writes = touched.map((target) => ({ buffer: target, rows: { start: 0, end: 1 }, bind: 'fixed', index: 0 }) as const);
  return {
    id,
    kind: 'zero',
    stream,
    layerSlot: 0,
    tokens: { start: 0, end: 1 },
    reads: [],
    writes,
    accumulates: [],
    waits,
    scratchBytes: 0,
  };
}

function scheduleOf(ops: readonly Op[], parts: readonly SectionPart[]): Schedule {
  const sections = SECTIONS.map((name): Section => (name === 'layerForward' ? { name, ops, parts } : { name, ops: [], parts: [] }));
  return Object.fromEntries(sections.map((section) => [section.name, section])) as unknown as Schedule;
}

/** Buffers of any size, pool and scope, and two parts of ops on any stream with any backward waits. */
function randomSchedule(): fc.Arbitrary<{ readonly buffers: readonly Buffer[]; readonly schedule: Schedule }> {
  const anyOp = fc.record({
    stream: fc.constantFrom(...STREAMS),
    touched: fc.array(fc.nat(9), { maxLength: 3 }),
    waits: fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 3 }),
  });
  const anyBuffer = fc.record({
    kib: fc.integer({ min: 1, max: 9 }),
    host: fc.boolean(),
    step: fc.boolean(),
    instances: fc.integer({ min: 1, max: 3 }),
  });
  return fc
    .record({ ops: fc.array(anyOp, { maxLength: 24 }), split: fc.nat(24), sizes: fc.array(anyBuffer, { minLength: 10, maxLength: 10 }) })
    .map(({ ops, split, sizes }) => {
      const middle = Math.min(split, ops.length);
      const buffers = sizes.map(({ kib, host, step, instances }, id) =>
        buffer(id, { instanceBytes: kib * 512, instances, pool: host ? 'host' : 'hbm', scope: step && id < 3 ? 'step' : 'section' }),
      );
      const placed = ops.map(({ stream, touched, waits }, id) => {
        const first = id < middle ? 0 : middle;
        return op(
          id,
          stream,
          touched,
          waits.map((back) => id - back).filter((wait) => wait >= first),
        );
      });
      const parts = [
        { layerSlot: 0, start: 0, end: middle },
        { layerSlot: 0, start: middle, end: ops.length },
      ];
      return { buffers, schedule: scheduleOf(placed, parts) };
    });
}
