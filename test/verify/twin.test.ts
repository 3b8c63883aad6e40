/** The verifier against its slow twin: what it lets pass reads the right values in every order, and what it stops goes wrong in some. */
import { describe, expect, it } from 'vitest';
import { layoutSchedule, mulberry32 } from '../../src/address/layout.js';
import { type VerifyInput, verifySchedule } from '../../src/verify/verify.js';
import { programOrder, type Reading, Twin, unfair } from './bruteForce.js';
import { changedArgs, changedRoles, type Damage, droppedBits, droppedWaits, movedBuffers } from './damage.js';
import { randomPlan } from './randomPlan.js';
import { smallPlan } from './small.js';

const PLANS = {
  'addresses of their own': smallPlan,
  'shared addresses': () => laidOut(smallPlan()),
  'random addresses': () => laidOut(smallPlan(), 3),
} as const;

function laidOut(plan: VerifyInput, seed?: number): VerifyInput {
  return { ...plan, ...layoutSchedule(plan, seed === undefined ? {} : { seed }) };
}

/** What a schedule means: its ops one after the other, every buffer in memory of its own. */
function meaning(plan: VerifyInput): Reading {
  const { reading, readsGarbage } = new Twin(plan).run(programOrder, 'separate');
  expect(readsGarbage).toBe(false);
  return reading;
}

/** Whether some op reads another value than in `expected`, in program order or one of `numOrders` others. */
function differs(plan: VerifyInput, expected: Reading, numOrders: number): boolean {
  const twin = new Twin(plan);
  const orders = [programOrder, ...Array.from({ length: numOrders }, (_, seed) => unfair(mulberry32(seed)))];
  return orders.some((choose) => twin.run(choose).reading.some((symbol, i) => symbol !== expected[i]));
}

interface Outcome {
  /** Damages that change values and pass the verifier: there must be none. */
  readonly missed: string[];
  readonly caught: string[];
  /** Stopped, and yet no order tried shows another value. */
  readonly strict: string[];
  readonly harmless: string[];
}

function judge(plan: VerifyInput, damages: Iterable<Damage>): Outcome {
  const expected = meaning(plan);
  const outcome: Outcome = { missed: [], caught: [], strict: [], harmless: [] };
  for (const { what, plan: damaged } of damages) {
    const found = verifySchedule(damaged);
    // Out of bounds, there is nothing to run.
    const changes = found.some(({ problem }) => problem.startsWith('binds')) || differs(damaged, expected, found.length > 0 ? 30 : 10);
    const fate = found.length > 0 ? (changes ? 'caught' : 'strict') : changes ? 'missed' : 'harmless';
    outcome[fate].push(`${what}${found[0] === undefined ? '' : `: ${found[0].problem}`}`);
  }
  return outcome;
}

describe.each(Object.entries(PLANS))('the verifier and its twin at %s', (_name, make) => {
  const plan = make();

  it('agree that the plan is legal', () => {
    expect(verifySchedule(plan)).toEqual([]);
    expect(differs(plan, meaning(plan), 30)).toBe(false);
  });

  it('agree on every dropped wait', () => {
    const { missed, caught, harmless, strict } = judge(plan, droppedWaits(plan));
    expect(missed).toEqual([]);
    expect(harmless).toEqual([]);
    expect(strict).toEqual([]);
    expect(caught.length).toBeGreaterThan(40);
  });

  it('agree on every dropped bit of an entry mask', () => {
    const { missed, caught, strict } = judge(plan, droppedBits(plan));
    expect(missed).toEqual([]);
    expect(strict).toEqual([]);
    expect(caught.length).toBeGreaterThan(10);
  });

  it('agree on every changed argument', () => {
    const { missed, caught, strict } = judge(plan, changedArgs(plan));
    expect(missed).toEqual([]);
    expect(strict).toEqual([]);
    expect(caught.length).toBeGreaterThan(60);
  });

  it('agree on buffers moved onto others', () => {
    const { missed, caught } = judge(plan, movedBuffers(plan, mulberry32(1)));
    expect(missed).toEqual([]);
    expect(caught.length).toBeGreaterThan(20);
  });
});

describe('the verifier', () => {
  it('stops every changed role, though roles move nothing', () => {
    const passed = [...changedRoles(smallPlan())].filter((damage) => verifySchedule(damage.plan).length === 0);
    expect(passed.map(({ what }) => what)).toEqual([]);
  });

  it('lets no random section pass that reads a wrong value in some order', () => {
    const plan = smallPlan();
    const passed = Array.from({ length: 400 }, (_, seed) => randomPlan(plan, mulberry32(seed))).filter(
      (one) => verifySchedule(one).length === 0,
    );
    for (const one of passed) expect(differs(one, meaning(one), 10)).toBe(false);
    expect(passed.length).toBeGreaterThan(20);
  });

  it('stops no random section without cause, but for dead values', () => {
    const plan = smallPlan();
    const stopped = Array.from({ length: 100 }, (_, seed) => randomPlan(plan, mulberry32(seed))).filter(
      (one) => verifySchedule(one).length > 0,
    );
    const wrong = stopped.filter((one) => {
      const { reading, readsGarbage } = new Twin(one).run(programOrder, 'separate');
      return readsGarbage || differs(one, reading, 30);
    });
    expect(wrong.length).toBeGreaterThan(0.7 * stopped.length);
  });
});
