/** The simulator against the slow reference, on random programs whose sections are called many times. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { simulateProgram } from '../../src/predict/simulate.js';
import { referenceRun } from './reference.js';
import { FULL_MASK, inputOf, STREAMS, type TimedOp, type TimedProgram } from './samples.js';

/** Whole seconds, so that ends coincide often; and microseconds, so that they do not. Long against the nanosecond that states are rounded to. */
const seconds = fc.oneof(
  fc.integer({ min: 0, max: 8 }),
  fc.integer({ min: 0, max: 2e7 }).map((us) => us / 1e6),
);

const op = fc.record({
  stream: fc.nat(STREAMS.length - 1),
  seconds,
  host: fc.constantFrom(0, 0.5, 2),
  waitBack: fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 2 }),
});

const ops = fc
  .array(op, { maxLength: 12 })
  .map((items) =>
    items.map(({ waitBack, ...rest }, id): TimedOp => ({ ...rest, waits: waitBack.map((back) => id - back).filter((wait) => wait >= 0) })),
  );

const masks = fc.array(fc.nat(FULL_MASK), { minLength: STREAMS.length, maxLength: STREAMS.length });

const program = fc
  .tuple(fc.array(ops, { minLength: 1, maxLength: 3 }), fc.constantFrom('side by side', 'duplex', 'serial'), fc.boolean())
  .chain(([sections, kind, beside]) => {
    const named = sections.map((section, i) => ({ name: `section${i}`, ops: section }));
    const call = fc.record({
      section: fc.constantFrom(...named.map(({ name }) => name)),
      waits: fc.oneof(masks, fc.constant([0, 0, 0, 0])),
    });
    const zero = fc.option(seconds, { nil: undefined });
    const turn = fc.record({ calls: fc.array(call, { maxLength: 3 }), gather: zero, reduce: zero, times: fc.integer({ min: 1, max: 6 }) });
    return fc.array(turn, { maxLength: 6 }).map(
      (turns): TimedProgram => ({
        sections: named,
        turns: turns.flatMap(({ times, gather, reduce, calls }) =>
          Array.from({ length: times }, () => ({
            calls,
            ...(gather === undefined ? {} : { gatherSeconds: gather }),
            ...(reduce === undefined ? {} : { reduceSeconds: reduce }),
          })),
        ),
        device: { serial: kind === 'serial', ...(kind === 'duplex' ? { duplex: { streams: [2, 3], slowdown: 1.5 } as const } : {}) },
        beside,
      }),
    );
  });

/** Equal to a billionth of the whole. */
function close(found: number, expected: number, whole: number): void {
  expect(Math.abs(found - expected)).toBeLessThanOrEqual(1e-9 * whole);
}

test.each([{}, { copies: true }, { host: true }])('equal to the reference with %j free', (free) => {
  fc.assert(
    fc.property(program, (one) => {
      const run = simulateProgram(inputOf(one, free));
      const reference = referenceRun(one, free);
      const whole = reference.seconds;
      close(run.microStepSeconds, whole, whole);
      for (const [name, { advanceSeconds, busySeconds }] of run.sections) {
        close(advanceSeconds, reference.advance.get(name) ?? 0, whole);
        if (name.startsWith('section')) {
          for (const [stream, busy] of busySeconds.entries()) close(busy, reference.busy.get(name)?.[stream] ?? 0, whole);
        }
      }
    }),
    { numRuns: 200 },
  );
});

test('calls of one class are simulated once, and the time is still that of the reference', () => {
  const layer: TimedOp[] = [
    { stream: 2, seconds: 0.003 },
    { stream: 0, seconds: 0.01, waits: [0], host: 1e-4 },
    { stream: 3, seconds: 0.004, waits: [1] },
  ];
  const one: TimedProgram = {
    sections: [{ name: 'layer', ops: layer }],
    turns: Array.from({ length: 60 }, () => ({ calls: [{ section: 'layer', waits: [0, 0, 1, 0] }] })),
    device: { serial: false },
  };
  const run = simulateProgram(inputOf(one));
  expect(run.numSimulated).toBeLessThan(6);
  close(run.microStepSeconds, referenceRun(one).seconds, run.microStepSeconds);
});

test('a host far ahead is as good as any that is ahead', () => {
  const one: TimedProgram = {
    sections: [
      {
        name: 'layer',
        ops: [
          { stream: 0, seconds: 0.01, host: 0.001 },
          { stream: 0, seconds: 0.01, host: 0.001 },
        ],
      },
    ],
    turns: Array.from({ length: 50 }, () => ({ calls: [{ section: 'layer' }] })),
    device: { serial: false },
  };
  expect(simulateProgram(inputOf(one)).numSimulated).toBe(2);
});
