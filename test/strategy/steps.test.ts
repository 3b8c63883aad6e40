import { describe, expect, test } from 'vitest';
import { estimator } from '../../src/strategy/evaluator.js';
import type { BuildInput } from '../../src/strategy/setting.js';
import { solving } from '../../src/strategy/solve.js';
import { finish, finishUnlessAborted, type Steps } from '../../src/strategy/steps.js';
import { specs } from '../spec/inputs.js';

function inputOf(hbmBytes: string): BuildInput {
  const run = { seqLen: '256K' };
  const { deepspeed, ...rest } = specs({ cluster: { gpus: 4, gpu: 'a100-80gb', hbmBytes }, run });
  return { ...rest, deepspeed: deepspeed.config };
}

/** Counts steps; aborts in a turn of the event loop of its own, once there were some. */
function counted<T>(steps: Steps<T>, controller?: AbortController, after = 0) {
  const seen = { steps: 0 };
  const all = (function* (): Steps<T> {
    for (let step = steps.next(); ; step = steps.next()) {
      if (step.done === true) return step.value;
      seen.steps += 1;
      if (seen.steps === after) setImmediate(() => controller?.abort(new Error('enough')));
      yield;
    }
  })();
  return { seen, all };
}

describe('steps', () => {
  test('choosing is the same at once, in turns, and with a signal that nobody aborts', async () => {
    const chosen = finish(solving(inputOf('80G'), estimator()));
    expect(await finishUnlessAborted(solving(inputOf('80G'), estimator()), undefined)).toEqual(chosen);
    expect(await finishUnlessAborted(solving(inputOf('80G'), estimator()), new AbortController().signal)).toEqual(chosen);
  });

  test.each([
    ['choosing', '7G'],
    ['looking for what would make it fit', '4G'],
  ])('a signal ends %s in between', async (_, hbmBytes) => {
    const whole = counted(solving(inputOf(hbmBytes), estimator()));
    try {
      finish(whole.all);
    } catch (error) {
      expect(error).toMatchObject({ code: 'does-not-fit' });
    }
    expect(whole.seen.steps).toBeGreaterThan(5);

    const controller = new AbortController();
    const ended = counted(solving(inputOf(hbmBytes), estimator()), controller, 3);
    await expect(finishUnlessAborted(ended.all, controller.signal)).rejects.toThrow('enough');
    expect(ended.seen.steps).toBeLessThan(6);
  });

  test('a signal that is aborted before ends it at the first step', async () => {
    await expect(finishUnlessAborted(solving(inputOf('80G'), estimator()), AbortSignal.abort(new Error('early')))).rejects.toThrow('early');
  });
});
