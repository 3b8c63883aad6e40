import { expect, test } from 'vitest';
import { mulberry32 } from '../../src/address/layout.js';
import { estimator, type Evaluator } from '../../src/strategy/evaluator.js';
import { candidatesFor } from '../../src/strategy/findStrategy.js';
import { mayFit } from '../../src/strategy/mayFit.js';
import { leanest } from '../../src/strategy/search/leanest.js';
import { type Setting, settingOf } from '../../src/strategy/setting.js';
import { inputOf } from './searchInputs.js';

const bytes = (gib: number): number => Math.round(gib * 2 ** 30);
/** The same in each run, but where others are asked for. */
const SEED = Number(process.env['SEED'] ?? 1);
const NUM_DRAWS = Number(process.env['DRAWS'] ?? 60);

function mayFitSlowly(setting: Setting, evaluate: Evaluator): boolean {
  const most = candidatesFor(setting).flatMap((placement) => placement.slice(-1));
  return [...leanest(setting), ...most].some((strategy) => evaluate.memory(setting, strategy).fits);
}

test('what is left out of the quick look never alone fits', () => {
  const next = mulberry32(SEED);
  const seen = { fits: 0, misfits: 0 };
  const ofMisfits = { quick: 0, slow: 0 };
  for (let i = 0; i < NUM_DRAWS; i++) {
    const cluster = { gpus: 2 ** Math.floor(4 * next()), hbmBytes: bytes(6 + 20 * next()), hostBytes: bytes(2 ** (4 + 5 * next())) };
    const seqLen = Math.round(2 ** (19 + 5 * next()));
    // Where the user fixes it nothing has none on the device, or nothing has all.
    const hiddenGradients = ['hbm', 'host', undefined][Math.floor(3 * next())];
    const run = { seqLen, ...(hiddenGradients === undefined ? {} : { strategy: { hiddenGradients } }) };
    const setting = settingOf(inputOf({ run, cluster }));
    const { memory, ...others } = estimator();
    const looks = { quick: 0, slow: 0 };
    const counted = (kind: keyof typeof looks): Evaluator => ({
      ...others,
      memory: (...asked) => {
        looks[kind] += 1;
        return memory(...asked);
      },
    });
    const fits = mayFitSlowly(setting, counted('slow'));
    expect(mayFit(setting, counted('quick')), `${JSON.stringify({ cluster, run })}, SEED=${SEED}`).toBe(fits);
    seen[fits ? 'fits' : 'misfits'] += 1;
    if (fits) continue;
    // All that the slow look has.
    ofMisfits.quick += looks.quick;
    ofMisfits.slow += looks.slow;
  }
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(0);
  expect(ofMisfits.quick).toBeLessThan(ofMisfits.slow);
});
