import { describe, expect, it } from 'vitest';
import { verifySchedule } from '../../src/verify/verify.js';
import { withLine, withSection, withoutOp } from './bend.js';
import { smallPlan, tiedPlan } from './small.js';

describe('verifySchedule', () => {
  it('finds nothing in a legal schedule', () => {
    expect(verifySchedule(smallPlan())).toEqual([]);
    expect(verifySchedule(tiedPlan())).toEqual([]);
  });

  it('names op, section and call', () => {
    const [found] = verifySchedule(withoutOp(smallPlan(), 'layerForward', 'pre', 1));
    expect(found).toMatchObject({ section: 'layerForward', op: 10, call: { turn: 'layer 0 forward', number: 0 } });
    expect(found?.text).toMatch(/^10 toHeads t\[4:8\) r qLocal/);
  });

  it('keeps the tied gradients of lm_head until the embedding hands them over', () => {
    const zeroed = withLine(tiedPlan(), 'embedBackward', 'embedBwd', (line) => `zero t[0:4) w wgradEmbed[0:4)\n${line}`);
    expect(verifySchedule(zeroed)[0]?.problem).toMatch(/overwrites elements of wgradEmbed to which op \d+ of lossForward added gradients/);
  });

  it('reports no more than a reader can use', () => {
    const plan = smallPlan();
    const waitless = plan.sections.reduce(
      (damaged, { name }) =>
        withSection(damaged, name, (section) => ({ ...section, ops: section.ops.map((op) => ({ ...op, waits: [] })) })),
      plan,
    );
    expect(verifySchedule(waitless).length).toBe(50);
  });
});
