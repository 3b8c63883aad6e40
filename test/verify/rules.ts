/** A rule of the verifier as a test: a damage to the small plan, and what must be said of it. */
import { expect, it } from 'vitest';
import { type VerifyInput, verifySchedule } from '../../src/verify/verify.js';
import { smallPlan } from './small.js';

/** The section, where it is given, is the one that the violation must name. */
export type Rule = readonly [what: string, damage: (plan: VerifyInput) => VerifyInput, problem: RegExp, section?: string];

export function findsAll(rules: readonly Rule[]): void {
  it.each(rules.map(([what, damage, problem, section]) => ({ what, damage, problem, section })))(
    'finds $what',
    ({ damage, problem, section }) => {
      const found = verifySchedule(damage(smallPlan()));
      expect(found.map((one) => one.problem)).toContainEqual(expect.stringMatching(problem));
      const named = found.find((one) => problem.test(one.problem));
      expect(named?.text).toBeTypeOf('string');
      if (section !== undefined) expect(named?.section).toBe(section);
    },
  );
}
