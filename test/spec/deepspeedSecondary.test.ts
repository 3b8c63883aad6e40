import { expect, test } from 'vitest';
import { deepspeedRemarks } from '../../src/spec/deepspeedRemarks.js';
import { errorOf, specs } from './inputs.js';

const hpz = (size: number, stage = 3): object => ({ zero_optimization: { stage, zero_hpz_partition_size: size } });
const parsed = (deepspeed: object) => specs({ deepspeed });

test.each([0, 1, 2, 4, 8])('a second partition over %i of 4 ranks is passed on', (size) => {
  expect(parsed(hpz(size)).deepspeed.config).toMatchObject(hpz(size));
});

test('groups that ranks do not split into are refused with the nearest that they do', () => {
  const found = errorOf(() => parsed(hpz(3)));
  expect(found).toMatchObject({ code: 'invalid-value', details: { divisors: [1, 2, 4] } });
  expect(found.message).toContain('4 ranks do not split into groups of 3');
  expect(found.hint).toMatch(/^2 works/);
  expect(errorOf(() => parsed(hpz(-1))).code).toBe('invalid-value');
});

test('below stage 3 it is remarked on, whatever its size', () => {
  const { deepspeed, run } = parsed(hpz(3, 2));
  expect(deepspeedRemarks(deepspeed.config, run)).toEqual([expect.stringContaining('zero_hpz_partition_size has no effect')]);
  const third = parsed(hpz(2));
  expect(deepspeedRemarks(third.deepspeed.config, third.run)).toEqual([]);
});
