import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { DEVICES } from '../../src/catalog/gpus.js';
import { parseCluster } from '../../src/catalog/index.js';
import { type AttentionNeeds, chooseKernel, kernelRate, lackOf } from '../../src/catalog/kernelChoice.js';
import { ATTENTION_KERNELS, type AttentionKernel, can, defaultKernels, kernelNamed } from '../../src/catalog/kernels.js';
import { MODEL_DTYPES, type ModelDtype } from '../../src/spec/dtype.js';
import { errorOf } from '../spec/inputs.js';

const LLAMA: AttentionNeeds = { dtype: 'bfloat16', headDim: 128, groupedHeads: true, window: false, softcap: false, rowTile: 128 };

const cluster = (gpu: string, installedKernels?: readonly string[]) =>
  parseCluster({ gpus: 8, gpu, ...(installedKernels === undefined ? {} : { installedKernels: [...installedKernels] }) });

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
  expect(able('cudnn')).toEqual([true, true, false, false]);
  expect(able('flash3')).toEqual([true, true, true, true]);
  expect(able('flash4')).toEqual([true, true, true, false]);
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

test.each([
  ['h100-80gb', undefined, LLAMA, 'cudnn'],
  ['h100-80gb', undefined, { ...LLAMA, headDim: 64 }, 'cudnn'],
  ['h100-80gb', undefined, { ...LLAMA, headDim: 256 }, 'cudnn'],
  ['h100-80gb', undefined, { ...LLAMA, window: true }, 'flash2'],
  ['h100-80gb', undefined, { ...LLAMA, softcap: true }, 'reference'],
  ['h100-80gb', undefined, { ...LLAMA, dtype: 'float32' }, 'reference'],
  ['h100-80gb', undefined, { ...LLAMA, headDim: 100 }, 'reference'],
  ['h100-80gb', ['flash3'], LLAMA, 'flash3'],
  ['h100-80gb', ['flash3'], { ...LLAMA, window: true }, 'flash3'],
  ['h100-80gb', ['flash4'], LLAMA, 'cudnn'],
  ['b200', undefined, LLAMA, 'cudnn'],
  ['b200', undefined, { ...LLAMA, headDim: 192 }, 'flash2'],
  ['b200', ['flash4'], LLAMA, 'flash4'],
  ['b200', ['flash4'], { ...LLAMA, headDim: 80 }, 'cudnn'],
  ['b200', ['flash3'], LLAMA, 'cudnn'],
  ['h100-80gb', undefined, { ...LLAMA, rowTile: 1 }, 'flash2'],
  ['a100-80gb', undefined, LLAMA, 'flash2'],
  ['mi300x', undefined, LLAMA, 'flash2'],
  ['cpu', undefined, { ...LLAMA, dtype: 'float32' }, 'cpu_flash'],
  ['cpu', undefined, { ...LLAMA, window: true }, 'reference'],
] as const)('on %s with %j installed, %j is run by %s', (gpu, installed, needs, kernel) => {
  expect(chooseKernel(undefined, needs, cluster(gpu, installed))).toBe(kernel);
});

test('the fastest goes by both directions, as the rates of this cluster are', () => {
  const h100 = cluster('h100-80gb');
  const row = (kernel: string, forwardFlops: number, backwardFlops: number) => ({ kernel, headDim: 128, forwardFlops, backwardFlops });
  const chosen = (...attentionKernels: readonly ReturnType<typeof row>[]) =>
    chooseKernel(undefined, LLAMA, { ...h100, rates: { ...h100.rates, attentionKernels } });
  expect(chosen(row('flash2', 3, 3), row('cudnn', 9, 2))).toBe('flash2');
  expect(chosen(row('flash2', 3, 3), row('cudnn', 9, 2.9))).toBe('cudnn');
  expect(chosen(row('reference', 9, 9), row('flash2', 1, 1))).toBe('flash2');
  expect(chosen(row('reference', 9, 9)), 'without rates the kernel that all have').toBe('flash2');
  expect(chosen(row('cudnn', 1, 1)), 'a kernel without a rate is not chosen').toBe('cudnn');
});

test.each([
  ['cudnn', 'h100-80gb', { ...LLAMA, window: true }, 'has no sliding window', 'use flash2 or reference'],
  ['cudnn', 'h100-80gb', { ...LLAMA, softcap: true }, 'has no softcap of scores', 'use reference'],
  ['cudnn', 'b200', { ...LLAMA, headDim: 192 }, 'takes head dims that are multiples of 8 up to 128, not 192', 'use flash2 or reference'],
  [
    'cudnn',
    'h100-80gb',
    { ...LLAMA, rowTile: 1 },
    'is right for multiples of 128 keys, to which chunks, or documents, of this run are not padded',
    'use flash2 or reference',
  ],
  ['cudnn', 'mi300x', LLAMA, 'runs on sm80, sm89, sm90, sm100, not on gfx942', 'use flash2 or reference'],
  ['flash3', 'a100-80gb', LLAMA, 'runs on sm90, not on sm80', 'use flash2 or cudnn or reference'],
  ['flash4', 'l40s', LLAMA, 'runs on sm90, sm100, not on sm89', 'use flash2 or cudnn or reference'],
  ['flash2', 'l40s', { ...LLAMA, headDim: 208 }, 'has no backward of head dims above 192 to 224 on sm89', 'use reference'],
  ['flash2', 'cpu', LLAMA, 'does not run bfloat16 on cpu', 'use cpu_flash or reference'],
  ['flash2', 'h100-80gb', { ...LLAMA, dtype: 'float32' }, 'does not run float32 on cuda', 'use reference'],
] as const)('%s on %s for %j %s', (kernel, gpu, needs, lacks, hint) => {
  const error = errorOf(() => chooseKernel(kernel, needs, cluster(gpu)));
  expect(error).toMatchObject({ code: 'unsupported', message: `the attention kernel '${kernel}' ${lacks}` });
  expect(error.hint).toBe(hint);
});

test('a kernel that is asked for is taken, installed or not, slower or not, where nothing is against it', () => {
  for (const name of ['cudnn', 'flash2', 'flash3', 'flash4', 'reference'])
    expect(chooseKernel(name, LLAMA, cluster('h100-80gb'))).toBe(name);
  const { architecture: _, ...unknown } = cluster('a100-80gb');
  expect(chooseKernel('flash3', LLAMA, unknown), 'a cluster that does not say which GPUs it has').toBe('flash3');
});

test('small chips have the head dim of 256 of which they lack smaller ones', () => {
  for (const headDim of [192, 256]) expect(chooseKernel('flash2', { ...LLAMA, headDim }, cluster('l40s'))).toBe('flash2');
  expect(chooseKernel('flash2', { ...LLAMA, headDim: 208 }, cluster('h100-80gb'))).toBe('flash2');
});

test('grouped heads are asked of a kernel where the model has them', () => {
  const without: AttentionKernel = { ...kernelNamed('flash2'), groupedHeads: false };
  expect(lackOf(without, LLAMA, { device: 'cuda' })).toBe('has no grouped heads');
  expect(lackOf(without, { ...LLAMA, groupedHeads: false }, { device: 'cuda' })).toBeUndefined();
});

test('what is said to be installed must be a kernel, and one that PyTorch has not', () => {
  expect(errorOf(() => cluster('h100-80gb', ['flash5']))).toMatchObject({ code: 'unknown-kernel' });
  const error = errorOf(() => cluster('h100-80gb', ['cudnn']));
  expect(error).toMatchObject({ code: 'invalid-value', message: expect.stringContaining("'cudnn'") });
  expect(error.hint).toContain('flash3 and flash4');
});

test('every chip has a rate of the kernel that all have, and none of a kernel that does not run on it', () => {
  for (const { name, architecture, rates } of DEVICES) {
    expect(kernelRate('flash2', 128, rates), name).toBeDefined();
    for (const { kernel } of rates.attentionKernels) {
      const { architectures } = kernelNamed(kernel);
      expect(architectures === undefined || architectures.includes(architecture ?? ''), `${kernel} on ${name}`).toBe(true);
    }
  }
});

test('docs/kernels.md has every kernel, as this table has it', () => {
  const text = readFileSync(new URL('../../docs/kernels.md', import.meta.url), 'utf8');
  const yes = (value: boolean): string => (value ? 'yes' : 'no');
  for (const { name, architectures, dtypes, headDims, groupedHeads, rectangle, window, softcap, varlen, ...more } of ATTENTION_KERNELS) {
    const { multipleOf, atMost, on = {}, but } = headDims;
    const others = Object.entries(on).map(([chip, most]) => `${most} on ${chip}`);
    const gap = but === undefined ? [] : [`not above ${but.above} to ${but.to} on ${but.on.join(', ')}`];
    const limits = [`${multipleOf} to ${atMost}`, ...others, ...gap].join(', ');
    const cells = [
      `\`${name}\``,
      (architectures ?? more.devices).join(', '),
      dtypes.length === MODEL_DTYPES.length ? 'all' : dtypes.join(', '),
      atMost === Number.MAX_SAFE_INTEGER ? 'any' : limits,
      ...[groupedHeads, rectangle, window, softcap, varlen, more.writesOutput].map(yes),
    ];
    expect(text).toContain(`| ${cells.join(' | ')} |`);
  }
});
