import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parseSpecs } from '../../src/catalog/specs.js';
import { errorOf, LLAMA } from './inputs.js';

const CONFIG = { train_micro_batch_size_per_gpu: 1, zero_optimization: { stage: 3 } };

function parse(section: unknown, run: object = {}) {
  const deepspeed = { ...CONFIG, fpdt: section };
  return parseSpecs({ model: LLAMA, cluster: { gpus: 4, gpu: 'a100-80gb' }, run: { seqLen: '64K', ...run }, deepspeed });
}

test('the section asks for what a run may ask, and the request goes before it', () => {
  const { run, deepspeed } = parse({ policy: 'fpdt', numChunks: 8, numSteps: 30 }, { numChunks: 16 });
  expect(run).toMatchObject({ policy: 'fpdt', numChunks: 16, numSteps: 30 });
  expect(deepspeed.config).not.toHaveProperty('fpdt.policy');
});

test('kernels are asked for there in the words of a run', () => {
  expect(parse({ kernels: 'norm=plain' }).run.kernels).toEqual({ norm: 'plain' });
});

test('the sequence may be named there alone', () => {
  expect(parse({ seqLen: 4096 }, { seqLen: undefined }).run.seqLen).toBe(4096);
});

test("a plan's resolved config is taken again, with what it remarked on", () => {
  expect(parse({ remarks: ['of another plan'], diskBytesPerParameter: 16 }).run.policy).toBe('auto');
  expect(parse(null).run.policy).toBe('auto');
});

test.each([
  [{ numChunk: 8 }, 'unknown-key', /^deepspeed\.fpdt\.numChunk: unknown key/, "did you mean 'numChunks'?"],
  [{ numChunks: 'many' }, 'invalid-value', /^deepspeed\.fpdt\.numChunks: expected .*, found/, 'give '],
  [{ kernels: { norm: 'lerp' } }, 'invalid-value', /^deepspeed\.fpdt\.kernels\.norm: expected .*, found "lerp"/, 'give '],
  [{ strategy: 'strategy.json' }, 'invalid-value', /^deepspeed\.fpdt\.strategy: expected an object/, 'give an object'],
  [7, 'invalid-value', /^deepspeed\.fpdt: expected an object, found 7/, 'give an object'],
])('%j is refused with its place', (section, code, message, hint) => {
  const error = errorOf(() => parse(section));
  expect(error.code).toBe(code);
  expect(error.message).toMatch(message);
  expect(error.hint).toContain(hint);
});

test('all that is wrong with it is told at once, with the rest of the config and lines', () => {
  const path = join(mkdtempSync(join(tmpdir(), 'fpdt-ours-')), 'ds_config.json');
  const text = `{
  "fpdt": {
    "policy": "fpd",
    "chunks": 8
  },
  "gradient_clipping": "much"
}`;
  writeFileSync(path, text);
  const error = errorOf(() =>
    parseSpecs({ model: LLAMA, cluster: { gpus: 4, gpu: 'a100-80gb' }, run: { seqLen: '64K' }, deepspeed: path }),
  );
  expect(error.message).toMatch(/^deepspeed: 3 problems\n {2}deepspeed\.fpdt\.policy \(line 3\): expected .*, found "fpd"; give /);
  expect(error.message).toMatch(/\n {2}deepspeed\.fpdt\.chunks \(line 4\): unknown key; /);
  expect(error.message).toMatch(/\n {2}deepspeed\.gradient_clipping \(line 6\)/);
});

test('a length of sequence that is wrong there is what is told', () => {
  expect(errorOf(() => parse({ seqLen: true }, { seqLen: undefined })).message).toMatch(/^deepspeed\.fpdt\.seqLen: expected /);
});
