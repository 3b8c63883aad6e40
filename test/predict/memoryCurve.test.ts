import { expect, it } from 'vitest';
import { memoryCurves, planCallsOf } from '../../src/predict/memoryCurve.js';
import { smallPlan } from './smallPlan.js';

const ROW = 64 * 4;
const CHECKPOINT = 256 * ROW;
/** Numbers of tokens and their positions. */
const TABLES = 2 * 256 * 8;

/** Op i of a call runs from second i to second i + 1. */
const times = (numOps: number) => ({
  startSeconds: Float64Array.from({ length: numOps }, (_, i) => i),
  endSeconds: Float64Array.from({ length: numOps }, (_, i) => i + 1),
});

it('draws bytes alive over a call: step buffers while they are needed, call buffers from first to last use, temporaries during their op', () => {
  const plan = smallPlan();
  const numbers = planCallsOf(plan).map(({ section }) => section);
  const { hbm, host } = memoryCurves(plan, numbers.indexOf('layerForward'), times(7));
  // All of these tensors are as large: a quarter of the rows with all heads, or all rows with a quarter of the heads.
  const [local, head] = [CHECKPOINT, CHECKPOINT];
  expect(hbm?.points).toEqual([
    { seconds: 0, bytes: TABLES + local },
    { seconds: 1, bytes: TABLES + 2 * local + 1000 },
    { seconds: 2, bytes: TABLES + 2 * local + head },
    { seconds: 3, bytes: TABLES + local + 2 * head },
    { seconds: 4, bytes: TABLES + 2 * local + head },
    { seconds: 5, bytes: TABLES + 3 * local },
    { seconds: 6, bytes: TABLES + local },
    { seconds: 7, bytes: TABLES },
  ]);
  expect(hbm?.peakBytes).toBe(TABLES + 3 * CHECKPOINT);
  expect(host?.points).toEqual([{ seconds: 0, bytes: CHECKPOINT }]);
});

it('a step buffer is dead before its first and after its last use', () => {
  const plan = smallPlan();
  const names = planCallsOf(plan).map(({ section }) => section);
  const hostBytes = (name: string) => memoryCurves(plan, names.indexOf(name), times(10)).host?.peakBytes;
  expect(hostBytes('embedForward')).toBe(0);
  expect(hostBytes('lossForward')).toBe(CHECKPOINT);
  expect(hostBytes('embedBackward')).toBe(0);
  expect(() => memoryCurves(plan, 1000, times(1))).toThrow(/no section/);
});
