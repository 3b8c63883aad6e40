import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { accuracyDocument, type Recorded } from '../../bench/accuracy/document.js';
import { accuracyOf, shapeAccuracy } from '../../bench/accuracy/judge.js';
import type { Round } from '../../bench/accuracy/round.js';
import { SHAPES } from '../../bench/accuracy/shapes.js';
import { verdictText } from '../../bench/accuracy/text.js';
import { compareRun } from '../../src/report/compare.js';
import { PLAN, result, step } from './sample.js';

const [SHAPE] = SHAPES as readonly [(typeof SHAPES)[number]];
/** Planned 2 s and attn 1.5 s; measured `seconds` and `attn`. */
function round(speedFactor: number, seconds = 2.1, attn = 1.6): Round {
  const steps = [0, 1, 2].map((index) =>
    step(index, { seconds, byKind: { attn: { count: 4, seconds: attn }, pre: { count: 2, seconds: 0.4 } } }),
  );
  const comparison = compareRun(PLAN, result(steps));
  return { speedFactor, runs: [{ policy: 'auto', comparison, outsideSeconds: 0.05 }] };
}

describe('accuracy', () => {
  it('is judged where the machine kept its speed, in the round of least drift', () => {
    expect(shapeAccuracy(SHAPE, [round(1.2), round(0.97)])).toMatchObject({ numRounds: 2, judged: true });
    expect(shapeAccuracy(SHAPE, [round(1.2), round(0.9)]).judged).toBe(false);
    expect(shapeAccuracy(SHAPE, [round(1.2), round(0.9)]).drift).toBeCloseTo(1 / 0.9 - 1, 12);
    expect(accuracyOf([shapeAccuracy(SHAPE, [round(1.2)])])).toMatchObject({ numJudged: 0, medianStepError: null, ok: null });
  });

  it('is that of the step and of each kind that matters', () => {
    const good = accuracyOf([shapeAccuracy(SHAPE, [round(1)])]);
    expect(good).toMatchObject({ numJudged: 1, ok: true });
    expect(good.medianStepError).toBeCloseTo(1 - 2 / 2.1, 12);
    expect(accuracyOf([shapeAccuracy(SHAPE, [round(1, 2.5)])]).ok).toBe(false);
    const slow = accuracyOf([shapeAccuracy(SHAPE, [round(1, 2.1, 2.1)])]);
    expect(slow).toMatchObject({ ok: false, numKindsWithin: slow.numKindsJudged - 1 });
    expect(verdictText(slow)).toMatch(/^missed: .* of \d+ op kinds within 25.0%$/);
    // The copies that the plan has for free, and of which none ran, are no part of it.
    const free = slow.shapes[0]?.runs[0]?.kinds.find(({ kind }) => kind === 'copy');
    expect(free).toMatchObject({ error: null, judged: false });
  });
});

describe('docs/accuracy.md', () => {
  it('is what the recorded result says', () => {
    const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
    const recorded = JSON.parse(read('bench/results/accuracy.json')) as Recorded;
    expect(read('docs/accuracy.md')).toBe(accuracyDocument(recorded));
    expect(recorded.result.shapes.length).toBe(SHAPES.length);
  });
});
