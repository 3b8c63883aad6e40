import { describe, expect, it } from 'vitest';
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Op, Section, SectionPart } from '../../src/schedule/op.js';
import { type CostModel, simulateSection } from '../../src/schedule/simulate.js';

const BUFFERS: readonly Buffer[] = [
  buffer(0, 'a', 'section'),
  buffer(1, 'b', 'section'),
  buffer(2, 'kept', 'step'),
  { ...buffer(3, 'far', 'section'), pool: 'host' },
];

/** Seconds of each op by id; copies at full duplex on side-by-side streams unless said otherwise. */
const costs = (seconds: readonly number[], more: Partial<CostModel> = {}): CostModel => ({
  seconds: ({ id }) => seconds[id] ?? 0,
  serial: false,
  duplexSlowdown: 1,
  ...more,
});

describe('simulateSection', () => {
  it('runs streams side by side, each in order, and starts an op when its waits are over', () => {
    const ops = [op(0, 'fetch', []), op(1, 'attn', [0]), op(2, 'fetch', []), op(3, 'attn', [2])];
    const { startSeconds, makespanSeconds, busySeconds, exposedCopySeconds } = simulateSection(section(ops), costs([2, 5, 4, 5]), BUFFERS);
    expect([...startSeconds]).toEqual([0, 2, 2, 7]);
    expect(makespanSeconds).toBe(12);
    expect(busySeconds).toEqual({ compute: 10, h2d: 6, d2h: 0, comm: 0 });
    expect(exposedCopySeconds).toBe(2);
  });

  it('a serial device takes the sum of all ops, so that every copy is exposed', () => {
    const ops = [op(0, 'fetch', []), op(1, 'attn', [0]), op(2, 'fetch', []), op(3, 'attn', [2])];
    const { makespanSeconds, exposedCopySeconds } = simulateSection(section(ops), costs([2, 5, 4, 5], { serial: true }), BUFFERS);
    expect(makespanSeconds).toBe(16);
    expect(exposedCopySeconds).toBe(6);
  });

  it('copies of both directions slow each other down only while both run', () => {
    const ops = [op(0, 'fetch', []), op(1, 'offload', [])];
    const { endSeconds } = simulateSection(section(ops), costs([2, 4], { duplexSlowdown: 2 }), BUFFERS);
    expect([...endSeconds]).toEqual([4, 6]);
  });

  it('joins streams at the end of a part', () => {
    const ops = [op(0, 'fetch', []), op(1, 'attn', [])];
    const parts = [
      { layerSlot: 0, start: 0, end: 1 },
      { layerSlot: 1, start: 1, end: 2 },
    ];
    expect(simulateSection(section(ops, parts), costs([3, 1]), BUFFERS).makespanSeconds).toBe(4);
    expect(simulateSection(section(ops), costs([3, 1]), BUFFERS).makespanSeconds).toBe(3);
  });

  it('draws bytes alive over time: step buffers always, section buffers from first to last use, scratch during its op', () => {
    const ops = [
      op(0, 'zero', [], { writes: [0] }),
      op(1, 'zero', [], { writes: [1], scratch: 50 }),
      op(2, 'offload', [1], { reads: [1], writes: [3] }),
    ];
    const { memory } = simulateSection(section(ops), costs([1, 1, 2]), BUFFERS);
    expect(memory.hbm.points).toEqual([
      { seconds: 0, bytes: 1100 },
      { seconds: 1, bytes: 1150 },
      { seconds: 2, bytes: 1100 },
      { seconds: 4, bytes: 1000 },
    ]);
    expect(memory.hbm.peakBytes).toBe(1150);
    expect(memory.host.points).toEqual([
      { seconds: 0, bytes: 0 },
      { seconds: 2, bytes: 100 },
      { seconds: 4, bytes: 0 },
    ]);
  });

  it('names every op that can never start and what it waits for', () => {
    const ops = [op(0, 'fetch', [3]), op(1, 'attn', [0]), op(2, 'fetch', []), op(3, 'attn', [2]), op(4, 'offload', [])];
    const run = () => simulateSection(section(ops), costs([1, 1, 1, 1, 1]), BUFFERS);
    expect(run).toThrow(expect.objectContaining({ code: 'schedule-stuck' }));
    expect(run).toThrow(/4 ops of layerForward can never start/);
    expect(run).toThrow(/0 fetch .*: waits for op 3 attn on compute, which is issued later/);
    expect(run).toThrow(/1 attn .*: waits for op 0 fetch on h2d, which never starts/);
    expect(run).toThrow(/2 fetch .*: is behind op 0 on h2d/);
    expect(run).toThrow(/3 attn .*: waits for op 2 fetch on h2d, which never starts/);
    expect(run).not.toThrow(/4 offload/);
  });

  it('names waits for itself and for ops that do not exist', () => {
    expect(() => simulateSection(section([op(0, 'attn', [0])]), costs([1]), BUFFERS)).toThrow(/issued by itself/);
    expect(() => simulateSection(section([op(0, 'attn', [9])]), costs([1]), BUFFERS)).toThrow(/waits for op 9, which does not exist/);
  });
});

function buffer(id: number, name: string, scope: Buffer['scope']): Buffer {
  const bytes = scope === 'step' ? 1000 : 100;
  return {
    id,
    name,
    pool: 'hbm',
    dtype: 'float32',
    shape: [1],
    strides: [1],
    instances: 1,
    instanceBytes: bytes,
    offset: 0,
    sections: scope === 'step' ? ['embedForward', 'layerBackward'] : ['layerForward'],
    scope,
  };
}

function op(
  id: number,
  kind: 'fetch' | 'attn' | 'offload' | 'zero',
  waits: readonly number[],
  views: { reads?: readonly number[]; writes?: readonly number[]; scratch?: number } = {},
): Op {
  const access = (target: number) => ({ buffer: target, rows: { start: 0, end: 1 }, bind: 'fixed', index: 0 }) as const;
  const stream = ({ fetch: 'h2d', offload: 'd2h', attn: 'compute', zero: 'compute' } as const)[kind];
  return {
    id,
    kind,
    stream,
    layerSlot: 0,
    tokens: { start: 0, end: 1 },
    reads: (views.reads ?? []).map(access),
    writes: (views.writes ?? []).map(access),
    accumulates: [],
    waits,
    scratchBytes: views.scratch ?? 0,
  };
}

function section(ops: readonly Op[], parts: readonly SectionPart[] = [{ layerSlot: 0, start: 0, end: ops.length }]): Section {
  return { name: 'layerForward', ops, parts };
}
