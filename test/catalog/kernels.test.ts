import { expect, test } from 'vitest';
import { parseCluster } from '../../src/catalog/index.js';
import { ATTENTION_KERNELS, can, defaultKernels, kernelNamed } from '../../src/catalog/kernels.js';
import { MODEL_DTYPES, type ModelDtype } from '../../src/spec/dtype.js';
import { errorOf } from '../spec/inputs.js';

test('a kernel says what it can do', () => {
  const full = { kind: 'full' } as const;
  const causal = { kind: 'causal' } as const;
  const window = { kind: 'window', window: 4 } as const;
  const able = (name: string) => [
    can(kernelNamed(name), full, { square: false }),
    can(kernelNamed(name), causal, { square: true }),
    can(kernelNamed(name), causal, { square: false }),
    can(kernelNamed(name), window, { square: true }),
  ];
  expect(able('reference')).toEqual([true, true, true, true]);
  expect(able('cpu_flash')).toEqual([true, true, false, false]);
  expect(able('flash2')).toEqual([true, true, true, true]);
});

test('each device has a kernel of its own', () => {
  for (const device of ['cpu', 'cuda'] as const) expect(kernelNamed(defaultKernels(device).attn).devices).toContain(device);
});

test('every dtype of a model has a kernel on a GPU that does not write the scores out, but fp32', () => {
  const fast = (dtype: ModelDtype) => kernelNamed(defaultKernels('cuda').attn).dtypes.includes(dtype);
  expect(MODEL_DTYPES.filter(fast)).toEqual(['bfloat16', 'float16']);
  for (const dtype of MODEL_DTYPES) expect(kernelNamed(defaultKernels('cpu').attn).dtypes).toContain(dtype);
});

test('an unknown kernel is refused by name', () => {
  expect(errorOf(() => kernelNamed('flash'))).toMatchObject({ code: 'unknown-kernel' });
  expect(errorOf(() => kernelNamed('flash')).hint).toContain(ATTENTION_KERNELS.map(({ name }) => name).join(', '));
});

test('rates are there for every kernel that a GPU may run fast; one that no worker has is not offered for it', () => {
  const { attentionKernels } = parseCluster({ gpus: 1, gpu: 'h100-80gb' }).rates;
  const rated = new Set(attentionKernels.map(({ kernel }) => kernel));
  expect([...rated]).toContain(defaultKernels('cuda').attn);
  const offered = ATTENTION_KERNELS.map(({ name }) => name);
  for (const name of ['cudnn', 'flash3']) {
    expect([...rated]).toContain(name);
    if (!offered.includes(name)) expect(errorOf(() => kernelNamed(name)).code).toBe('unknown-kernel');
  }
});
