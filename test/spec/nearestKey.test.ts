import { expect, test } from 'vitest';
import { editDistance, nearestKey } from '../../src/spec/nearestKey.js';

test('edit distance counts insertions, deletions and substitutions', () => {
  expect(editDistance('kitten', 'sitting')).toBe(3);
  expect(editDistance('', 'abc')).toBe(3);
  expect(editDistance('same', 'same')).toBe(0);
});

test('the nearest name is offered, and none where nothing is near', () => {
  expect(nearestKey('zero_optimisation', ['optimizer', 'zero_optimization', 'bf16'])).toBe('zero_optimization');
  expect(nearestKey('seq_len', ['seqLen', 'seed'])).toBe('seqLen');
  expect(nearestKey('banana', ['optimizer', 'zero_optimization'])).toBeUndefined();
});
