import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { withEntryWaits } from '../../src/address/entryWaits.js';
import { layoutSchedule } from '../../src/address/layout.js';
import type { Op, Section } from '../../src/schedule/op.js';
import type { Call } from '../../src/schedule/program.js';
import type { Schedule } from '../../src/schedule/schedule.js';
import { EVERY_KIND, type Small, smallSchedule } from '../schedule/context.js';
import { STREAMS, buffer, call, op, randomSchedule, scheduleOf, section } from './randomSchedule.js';
import { issue, races } from './timing.js';

const ALL_BUT = STREAMS.map((_, stream) => 2 ** STREAMS.length - 1 - 2 ** stream);
const callsOf = ({ programs }: Schedule): readonly Call[] => programs.train.turns.flatMap(({ calls }) => calls);
const ownCalls = (schedule: Schedule): readonly Call[] => callsOf(schedule).filter(({ owner }) => owner === 'plan');

/** Bits of all calls but the first, as `compute<h2d`. */
function bits(schedule: Schedule): readonly string[] {
  return ownCalls(schedule)
    .slice(1)
    .flatMap(({ waits }) => waits.flatMap((mask, s) => STREAMS.filter((_, t) => (mask >> t) & 1).map((name) => `${STREAMS[s]}<${name}`)));
}

/** The first call, on all streams: each then knows that the micro-step before is done. */
const BEGIN = section(
  'begin',
  STREAMS.map((stream, id) => op(id, stream, [])),
);

/** Masks of two calls after it; buffers 0 and 1 lie at the same address. */
function between(first: readonly Op[], second: readonly Op[]): readonly string[] {
  const buffers = [buffer(0, { offset: 0 }), buffer(1, { offset: 0 }), buffer(2, { offset: 4096 })];
  const sections = [BEGIN, section('first', first), section('second', second)];
  return bits(
    withEntryWaits(
      scheduleOf(
        buffers,
        sections,
        ['begin', 'first', 'second'].map((name) => call(name)),
      ),
    ),
  );
}

const reads = (one: Op): Op => ({ ...one, reads: one.writes, writes: [] });

describe('entry masks', () => {
  it.each(EVERY_KIND)("%s: the first call of a micro-step waits for everything, ZeRO's for nothing", (_name, policy, numChunks, more) => {
    const placed = layoutSchedule(smallSchedule(policy, numChunks, more));
    expect(ownCalls(placed)[0]?.waits).toEqual(ALL_BUT);
    for (const { owner, waits } of callsOf(placed)) if (owner === 'zero') expect(waits).toEqual(STREAMS.map(() => 0));
  });

  it('order what two calls touch on two streams, where one changes it', () => {
    expect(between([op(0, 'compute', [0])], [op(0, 'h2d', [1])])).toEqual(['h2d<compute']);
    expect(between([reads(op(0, 'compute', [0]))], [op(0, 'h2d', [1])])).toEqual(['h2d<compute']);
    expect(between([reads(op(0, 'compute', [0]))], [reads(op(0, 'h2d', [0]))])).toEqual([]);
    expect(between([op(0, 'compute', [0])], [op(0, 'h2d', [2])])).toEqual([]);
    expect(between([op(0, 'compute', [0])], [op(0, 'compute', [1])])).toEqual([]);
  });

  it('are left out where an op of the call waits for the stream anyway, or another stream of the mask has waited', () => {
    const first = [op(0, 'compute', [0]), op(1, 'd2h', [0], [0])];
    expect(between(first, [op(0, 'h2d', [1])])).toEqual(['h2d<d2h']);
    expect(between(first, [op(0, 'd2h', [0]), op(1, 'h2d', [1], [0])])).toEqual([]);
    expect(between([...first, op(2, 'compute', [0], [1])], [op(0, 'h2d', [1])])).toEqual(['h2d<compute']);
  });

  it('follow the arguments of calls', () => {
    const buffers = [buffer(0, { offset: 0, instances: 3, scope: 'step' })];
    const named = (stream: string): readonly Op[] => [
      { ...op(0, stream, []), writes: [{ buffer: 0, rows: { start: 0, end: 256 }, param: 0, index: 0 }] },
    ];
    const sections = [BEGIN, section('first', named('compute'), ['x']), section('second', named('h2d'), ['x'])];
    const masks = (x: number, y: number): readonly string[] =>
      bits(withEntryWaits(scheduleOf(buffers, sections, [call('begin'), call('first', [x]), call('second', [y])])));
    expect(masks(0, 1)).toEqual([]);
    expect(masks(1, 1)).toEqual(['h2d<compute']);
  });

  it('a stream without an op in the first call does not rely on the mask it has there', () => {
    const buffers = [buffer(0, { offset: 0 })];
    const sections = [section('compute', [op(0, 'compute', [0])]), section('copy', [op(0, 'h2d', [0])])];
    const placed = withEntryWaits(scheduleOf(buffers, sections, [call('compute'), call('copy')]));
    expect(bits(placed)).toEqual(['h2d<compute']);
    expect(races(placed, issue(placed, 'beforeFirstOp'))).toEqual([]);
  });
});

describe('programs that need no masks', () => {
  it('those whose ops all come one after the other, and whose calls begin and end on one stream', () => {
    fc.assert(
      fc.property(randomSchedule(), (schedule) => {
        const serial = { ...schedule, sections: schedule.sections.map(oneAfterTheOther) };
        expect(bits(layoutSchedule(serial))).toEqual([]);
      }),
      { numRuns: 200 },
    );
  });

  it('those that keep everything on the device', () => {
    const some: readonly Small[] = [{}, { attentionOutput: 'recompute' }, { backwardOrder: 'keyValueOuterAscending' }];
    for (const more of some) expect(bits(layoutSchedule(smallSchedule('auto', 4, more)))).toEqual([]);
  });
});

describe('masks that are needed', () => {
  it.each(EVERY_KIND.filter(([, policy, , { checkpoints }]) => policy === 'fpdt' && checkpoints !== 'hbm'))(
    '%s: without any of them ops race',
    (_name, policy, numChunks, more) => {
      const placed = layoutSchedule(smallSchedule(policy, numChunks, more));
      expect(races(placed, issue(placed))).toEqual([]);
      const without = withMasks(placed, (waits, call) => (call === 0 ? waits : waits.map(() => 0)));
      expect(races(without, issue(without))).not.toEqual([]);
    },
  );

  // A mask is for all of a stream's work so far and for all that the call does: what it orders need not race op by op.
  it('most bits cannot be left out one by one: less than half of fpdt can', () => {
    const placed = layoutSchedule(smallSchedule('fpdt', 3, { chunkTokens: 8, localChunkTokens: 4 }));
    const all = ownCalls(placed).flatMap(({ waits }, n) =>
      n === 0 ? [] : waits.flatMap((mask, s) => STREAMS.flatMap((_, t) => ((mask >> t) & 1 ? [[n, s, t] as const] : []))),
    );
    const idle = all.filter(([n, s, t]) => {
      const without = withMasks(placed, (waits, number) =>
        waits.map((mask, stream) => (number === n && stream === s ? mask - 2 ** t : mask)),
      );
      return races(without, issue(without)).length === 0;
    });
    expect(all.length).toBeGreaterThan(0);
    expect(idle.length).toBeLessThan(all.length / 2);
  });
});

/** Each op waits for the one before it; the first and the last are on compute. */
function oneAfterTheOther({ ops, ...rest }: Section): Section {
  const all = [op(0, 'compute', []), ...ops, op(0, 'compute', [])];
  return { ...rest, ops: all.map((one, id) => ({ ...one, id, waits: id === 0 ? [] : [id - 1] })) };
}

/** Changes the masks of the plan's own calls, which are numbered. */
function withMasks(schedule: Schedule, change: (waits: readonly number[], call: number) => readonly number[]): Schedule {
  let number = 0;
  const turns = schedule.programs.train.turns.map((turn) => ({
    ...turn,
    calls: turn.calls.map((one) => (one.owner === 'plan' ? { ...one, waits: change(one.waits, number++) } : one)),
  }));
  return { ...schedule, programs: { train: { turns } } };
}
