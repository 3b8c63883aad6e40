import { expect, test } from 'vitest';
import { installedKernels } from '../../src/bridge/calibration.js';

test('kernels are installed where every rank found their package', () => {
  expect(installedKernels({})).toEqual({});
  expect(installedKernels({ 'installed/flash3': 1, 'installed/flash4': 0.5, 'installed/flash9': 1, matmulFlops: 1 })).toEqual({
    installedKernels: ['flash3'],
  });
});
