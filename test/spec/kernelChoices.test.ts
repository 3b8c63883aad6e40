import { describe, expect, it, test } from 'vitest';
import { KERNEL_NAMES, type KernelChoices, parseKernels } from '../../src/spec/kernelChoices.js';
import { errorOf, specs } from './inputs.js';

test('auto asks for nothing, plain for the twin of every kind', () => {
  expect(parseKernels('auto')).toBeUndefined();
  expect(parseKernels({})).toBeUndefined();
  const plain = Object.fromEntries(Object.keys(KERNEL_NAMES).map((kind) => [kind, 'plain']));
  expect(parseKernels(' plain ')).toEqual(plain);
});

test('kinds are chosen one by one, as text or as an object, in one order', () => {
  const found = parseKernels('norm=plain, loss = inplace');
  expect(found).toEqual({ loss: 'inplace', norm: 'plain' });
  expect(JSON.stringify(parseKernels({ norm: 'plain', loss: 'inplace' }))).toBe(JSON.stringify(found));
});

describe('refused are', () => {
  it.each([
    ['pline', /run\.kernels: expected auto, plain, or kind=kernel .*, found "pline"/, "did you mean 'plain'?"],
    ['', /found ""/, 'write auto, plain, or choices such as norm=plain'],
    ['norm', /found "norm"/, 'write auto, plain'],
    ['norms=plain', /run\.kernels: unknown key 'norms'/, "did you mean 'norm'?"],
    ['norm=lerp', /run\.kernels\.norm: expected vectornorm or plain, found "lerp"/, 'write vectornorm, plain'],
    ['norm=vectornrm', /found "vectornrm"/, "did you mean 'vectornorm'?"],
    ['norm=plain,merge', /expected name=value with commas between, found "merge"/, 'norm=plain,merge=plain'],
    ['norm=plain=plain', /found "norm=plain=plain"/, 'norm=plain,merge=plain'],
  ])('%j', (text, message, hint) => {
    const error = errorOf(() => parseKernels(text));
    expect(error.message).toMatch(message);
    expect(error.hint).toContain(hint);
  });

  it.each([
    [{ norms: 'plain' }, 'unknown-key', "did you mean 'norm'?"],
    [{ norm: 'triton' }, 'invalid-value', 'give "vectornorm" or "plain"'],
    [7, 'invalid-value', 'give a text or an object'],
  ])('%j in a run', (kernels, code, hint) => {
    const error = errorOf(() => specs({ run: { kernels: kernels as KernelChoices } }));
    expect(error.code).toBe(code);
    expect(error.hint).toContain(hint);
  });
});

test('a run has what was asked for, and nothing where nothing was', () => {
  expect(specs({ run: { kernels: 'norm=plain' } }).run.kernels).toEqual({ norm: 'plain' });
  expect(specs({ run: { kernels: 'auto' } }).run).not.toHaveProperty('kernels');
});
