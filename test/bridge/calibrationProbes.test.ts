import { expect, test } from 'vitest';
import { type CalibrationInput, calibrationProbes } from '../../src/bridge/calibrationProbes.js';
import { parseCluster } from '../../src/catalog/clusters.js';
import type { ClusterSpec } from '../../src/spec/types.js';

const deepspeed = {
  zero_optimization: { stage: 3, reduce_bucket_size: 4096 },
  optimizer: { type: 'AdamW', params: { lr: 1e-3, torch_adam: true } },
};
const INPUT: CalibrationInput = { model: 'examples/demo/model', ranks: 2, chunkTokens: 65_536, deepspeed, seconds: 1 };

/** A machine with so many bytes for all ranks together, half of them for either pool. */
const machine =
  (bytes: number) =>
  ({ ranks }: CalibrationInput): ClusterSpec =>
    parseCluster({ gpus: ranks, gpu: 'cpu', hbmBytes: bytes / ranks / 2, hostBytes: bytes / ranks / 2 });

/** What a hint says to change. */
function changed(hint: string): Partial<CalibrationInput> {
  const number = (option: string): number | undefined => {
    const text = new RegExp(`--${option} (\\d+)`).exec(hint)?.[1];
    return text === undefined ? undefined : Number(text);
  };
  const [ranks, chunkTokens] = [number('ranks'), number('chunk-tokens')];
  return { ...(ranks === undefined ? {} : { ranks }), ...(chunkTokens === undefined ? {} : { chunkTokens }) };
}

async function hintOf(input: CalibrationInput, bytes: number): Promise<string> {
  const error = await calibrationProbes(input, machine(bytes)).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: 'does-not-fit', message: expect.stringMatching(/^what is measured with does not fit: /) as string });
  return (error as { readonly hint: string }).hint;
}

test('plans that fit are what is run', async () => {
  expect(await calibrationProbes({ ...INPUT, chunkTokens: 1024 }, machine(4e9))).toHaveLength(2);
});

test.each([
  ['shorter chunks', { chunkTokens: 2 ** 20 }, 2e9, /^--chunk-tokens \d+ fits$/],
  ['fewer ranks', { ranks: 16, chunkTokens: 64 }, 1e8, /^--ranks \d+ fits$/],
  ['both', { ranks: 16, chunkTokens: 2 ** 20 }, 1e8, /^--ranks \d+ with --chunk-tokens \d+ fits$/],
])('%s: the change that is named fits', async (_, change, bytes, pattern) => {
  const input = { ...INPUT, ...change };
  const hint = await hintOf(input, bytes);
  expect(hint).toMatch(pattern);
  expect(await calibrationProbes({ ...input, ...changed(hint) }, machine(bytes))).toHaveLength(2);
});

test('where none is found, the model is too large', async () => {
  expect(await hintOf(INPUT, 1e6)).toMatch(/^free memory, or measure a model with smaller layers/);
});

test('other errors are as they are', async () => {
  await expect(calibrationProbes({ ...INPUT, chunkTokens: 0 }, machine(4e9))).rejects.toThrow(/run\.seqLen/);
});
