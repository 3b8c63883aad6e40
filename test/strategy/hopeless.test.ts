import { describe, expect, test } from 'vitest';
import { memoryEstimator } from '../../src/strategy/evaluator.js';
import { findStrategy } from '../../src/strategy/findStrategy.js';
import { isHopeless } from '../../src/strategy/hopeless.js';
import { type BuildInput, settingOf } from '../../src/strategy/setting.js';
import { type Bend, specs } from '../spec/inputs.js';

const MIB = 2 ** 20;

function inputOf({ run = {}, cluster = {} }: Bend): BuildInput {
  const { deepspeed, ...rest } = specs({
    cluster: { gpus: 4, gpu: 'cpu', ...cluster },
    run,
    deepspeed: { zero_optimization: { stage: 3, reduce_bucket_size: 1e5 }, bf16: { enabled: 'auto' } },
  });
  return { ...rest, deepspeed: deepspeed.config };
}

describe('isHopeless', () => {
  test('never of what fits, and of some that does not', () => {
    const seen = { fits: 0, hopeless: 0 };
    for (const seqLen of ['4K', '64K']) {
      for (const hbmBytes of [1, 4, 16, 64].map((size) => size * MIB)) {
        for (const hostBytes of [1, 16].map((size) => size * MIB)) {
          const input = inputOf({ run: { seqLen, hbmReserve: 0 }, cluster: { hbmBytes, hostBytes } });
          const { memory } = findStrategy(input, memoryEstimator());
          const hopeless = isHopeless(settingOf(input));
          expect(memory.fits && hopeless, `${seqLen} ${hbmBytes} ${hostBytes}`).toBe(false);
          if (memory.fits) seen.fits += 1;
          if (hopeless) seen.hopeless += 1;
        }
      }
    }
    expect(seen.fits).toBeGreaterThan(0);
    expect(seen.hopeless).toBeGreaterThan(0);
  });

  test('where the states of the optimizer alone have no room', () => {
    expect(isHopeless(settingOf(inputOf({ cluster: { hbmBytes: MIB } })))).toBe(true);
  });
});
