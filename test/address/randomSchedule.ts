/** Random laid-out-to-be schedules: few buffers, sections of random ops whose own conflicts are ordered, calls with any arguments. */
import fc from 'fast-check';
import { linksOf, streamsOf } from '../../src/catalog/pools.js';
import type { Buffer } from '../../src/schedule/buffer.js';
import type { Access, Op, Section } from '../../src/schedule/op.js';
import { addWaits } from '../../src/schedule/passes/addWaits.js';
import type { Call } from '../../src/schedule/program.js';
import type { Schedule } from '../../src/schedule/schedule.js';
import type { Pool } from '../../src/spec/pools.js';

const POOLS: readonly Pool[] = [
  { name: 'hbm', kind: 'device', bytes: 0 },
  { name: 'host', kind: 'pinned', bytes: 0 },
  { name: 'disk', kind: 'file', bytes: 0 },
];
const LINKS = linksOf(POOLS);
export const STREAMS = streamsOf(LINKS);

/** A buffer of float32 rows, 1 KiB, on the device, dead after its call. */
export function buffer(id: number, more: Partial<Buffer> = {}): Buffer {
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
    scope: 'call',
    ...more,
  };
}

/** An op that changes the whole of some buffers. */
export function op(id: number, stream: string, touched: readonly number[], waits: readonly number[] = []): Op {
  const writes = touched.map((target) => ({ buffer: target, rows: { start: 0, end: 256 }, param: -1, index: 0 }));
  return { id, kind: 'zero', stream, tokens: { start: 0, end: 1 }, reads: [], writes, accumulates: [], waits, scratchBytes: 0 };
}

export function section(name: string, ops: readonly Op[], params: readonly string[] = []): Section {
  return { name, params: params.map((one) => ({ name: one })), ops };
}

export function call(name: string, args: readonly number[] = []): Call {
  return { section: name, args, owner: 'plan', waits: [] };
}

/** One turn of calls. */
export function scheduleOf(buffers: readonly Buffer[], sections: readonly Section[], calls: readonly Call[]): Schedule {
  return {
    pools: POOLS,
    links: LINKS,
    streams: STREAMS,
    buffers,
    attributes: [],
    tables: [],
    sections,
    programs: { train: { turns: [{ module: 'layer', layer: 0, direction: 'forward', calls }] } },
  };
}

const PARAMS = ['x', 'y'];

/** A buffer is named by a parameter where it has instances for both; the parameters of a call differ. */
export function randomSchedule(): fc.Arbitrary<Schedule> {
  const anyBuffer = fc.record({
    units: fc.integer({ min: 1, max: 9 }),
    pool: fc.constantFrom('hbm', 'hbm', 'host', 'disk'),
    isStep: fc.boolean(),
    isNamed: fc.boolean(),
  });
  const anyView = fc.record({
    buffer: fc.nat(7),
    start: fc.nat(3),
    length: fc.integer({ min: 1, max: 4 }),
    param: fc.nat(1),
    changes: fc.boolean(),
  });
  const anyOp = fc.record({
    stream: fc.constantFrom(...STREAMS),
    views: fc.array(anyView, { maxLength: 3 }),
    waits: fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 2 }),
  });
  return fc
    .record({
      buffers: fc.array(anyBuffer, { minLength: 8, maxLength: 8 }),
      sections: fc.array(fc.array(anyOp, { maxLength: 12 }), { minLength: 1, maxLength: 4 }),
      calls: fc.array(fc.record({ section: fc.nat(3), x: fc.nat(2), shift: fc.integer({ min: 1, max: 2 }) }), {
        minLength: 1,
        maxLength: 8,
      }),
    })
    .map(({ buffers: shapes, sections, calls }) => {
      const buffers = shapes.map(({ units, pool, isStep, isNamed }, id) => {
        const unit = pool === 'disk' ? 4096 : 512;
        // Four groups of rows; the last does not reach the end of the instance.
        const shape = [(units * unit) / 4 - 4];
        return buffer(id, {
          pool,
          shape,
          instanceBytes: units * unit,
          instances: isNamed ? 3 : 1,
          scope: isStep ? 'step' : 'call',
        });
      });
      const toAccess = ({ buffer: id, start, length, param }: { buffer: number; start: number; length: number; param: number }): Access => {
        const { shape, instances } = buffers[id] as Buffer;
        const group = Math.ceil((shape[0] ?? 0) / 16) * 4;
        const rows = { start: Math.min(start, 3) * group, end: Math.min((start + length) * group, shape[0] ?? 0) };
        return { buffer: id, rows, param: instances > 1 ? param : -1, index: 0 };
      };
      const built = sections.map((ops, n) => {
        const placed = ops.map(
          ({ stream, views, waits }, id): Op => ({
            ...op(
              id,
              stream,
              [],
              waits.map((back) => id - back).filter((wait) => wait >= 0),
            ),
            reads: views.filter(({ changes }) => !changes).map(toAccess),
            writes: views.filter(({ changes }) => changes).map(toAccess),
          }),
        );
        const needed = addWaits(placed.map((one) => ({ ...one, waits: [] })));
        const ordered = placed.map((one, id) => ({ ...one, waits: [...new Set([...one.waits, ...(needed[id]?.waits ?? [])])] }));
        return section(`section${n}`, ordered, PARAMS);
      });
      const called = calls.map(({ section: n, x, shift }) => call(`section${n % sections.length}`, [x, (x + shift) % 3]));
      return scheduleOf(buffers, built, called);
    });
}
