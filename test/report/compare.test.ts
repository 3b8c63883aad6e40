import { describe, expect, it } from 'vitest';
import { compareRun, comparisonToText, median } from '../../src/report/compare.js';
import { progressLine } from '../../src/report/progress.js';
import { judge, verdictLine } from '../../src/report/verdict.js';
import { PLAN, result, step } from './sample.js';

const STEPS = [step(0, { seconds: 30 }), step(1), step(2, { seconds: 2.3 })];
const COMPARISON = compareRun(PLAN, result(STEPS));

describe('planned against measured', () => {
  it('takes times from all steps but the first, losses from the ends', () => {
    expect(COMPARISON).toMatchObject({ numTimedSteps: 2, firstLoss: 5, lastLoss: 4.8, stepSeconds: { planned: 2 } });
    expect(COMPARISON.stepSeconds.measured).toBeCloseTo(2.2, 9);
    expect(compareRun(PLAN, result([step(0, { seconds: 7 })])).stepSeconds.measured).toBe(7);
  });

  it('lists kinds that only the plan or only the run has, longest first', () => {
    expect(COMPARISON.kinds.map(({ kind }) => kind)).toEqual(['attn', 'pre', 'gather', 'fetch']);
    expect(COMPARISON.kinds[2]).toEqual({ kind: 'gather', plannedCount: 0, measuredCount: 1, plannedSeconds: 0, measuredSeconds: 0.1 });
    expect(COMPARISON.kinds[3]).toMatchObject({ plannedCount: 3, measuredCount: 0 });
  });

  it('prints one row per kind, idle, the step and memory', () => {
    const lines = comparisonToText(COMPARISON).split('\n');
    expect(lines.find((line) => line.startsWith('attn'))).toMatch(/attn\s+4\s+4\s+1\.50 s\s+1\.60 s\s+1\.07x/);
    expect(lines.find((line) => line.startsWith('gather'))).toMatch(/-$/);
    expect(lines.find((line) => line.startsWith('idle'))).toContain('100 ms');
    expect(lines.find((line) => line.startsWith('hbm, peak'))).toMatch(/100 MiB\s+99 MiB\s+0\.99x/);
  });

  it('has a median of none, odd and even many', () => {
    expect([median([]), median([3, 1, 2]), median([4, 1, 3, 2])]).toEqual([0, 2, 2.5]);
  });
});

describe('verdict', () => {
  it('keeps a run that kept to its plan', () => {
    expect(judge(COMPARISON)).toMatchObject({ ok: true, failures: [] });
    expect(verdictLine(COMPARISON)).toBe('loss 5.0000 -> 4.8000, hbm planned 100 MiB measured 99 MiB, step planned 2.00 s measured 2.20 s');
  });

  const broken: readonly (readonly [string, Parameters<typeof result>[0], Parameters<typeof result>[1], RegExp])[] = [
    ['a loss that rises', [step(0), step(1, { loss: 6 })], {}, /loss did not fall: 5\.0000 -> 6\.0000/],
    ['a loss that is not finite', [step(0), step(1, { loss: null })], {}, /not finite/],
    ['too much memory', STEPS, { hbmBytes: 106 * 2 ** 20 }, /hbm memory within 5%.*\+6\.0%/],
    ['too little memory', STEPS, { hostBytes: 9 * 2 ** 20 }, /host memory within 5%.*-10\.0%/],
    ['bytes copied too often', [step(0), step(1, { copiedBytes: { h2d: 4097, d2h: 2048 } })], {}, /h2d.*planned 4096, measured 4097/],
    ['a slow step', [step(0), step(1, { seconds: 3.1, idleSeconds: 1.1 })], {}, /step time within 1\.5x.*\(1\.55x\)/],
    ['a fast step', [step(0), step(1, { seconds: 1.2, idleSeconds: -0.8 })], {}, /\(1\.67x\)/],
    ['time that no op accounts for', [step(0), step(1, { idleSeconds: 0.4 })], {}, /op time \+ idle/],
  ];
  it.each(broken)('fails on %s', (_name, steps, changes, expected) => {
    const { ok, failures } = judge(compareRun(PLAN, result(steps, changes)));
    expect(ok).toBe(false);
    expect(failures).toHaveLength(1);
    expect(failures[0]).toMatch(expected);
  });
});

describe('progress', () => {
  it('is one line with step, loss, speed and memory against plan', () => {
    expect(progressLine(PLAN, step(1))).toBe(
      'step 2/3  loss 4.9000  2.10 s (plan 2.00 s)  476 tokens/s  hbm 99 MiB of 100 MiB planned  host 10 MiB of 10 MiB planned',
    );
  });

  it('names what was not finite', () => {
    expect(progressLine(PLAN, step(0, { loss: null, nonFinite: ['loss'] }))).toMatch(/loss not finite.*not finite: loss$/);
  });
});
