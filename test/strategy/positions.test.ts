/** Sequences on models whose positions are learned. */
import { expect, test } from 'vitest';
import { planRun } from '../../src/index.js';

const GPT2 = { model_type: 'gpt2', n_embd: 32, n_layer: 2, n_head: 4, vocab_size: 40, n_positions: 64 };
const NO_DROPOUT = { resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 };

function plan(seqLen: number, numChunks: number): Promise<unknown> {
  return planRun({ model: { ...GPT2, ...NO_DROPOUT }, cluster: { gpus: 2, gpu: 'cpu' }, run: { seqLen, numChunks } });
}

test('as long as the table, and no longer', async () => {
  await expect(plan(64, 2)).resolves.toBeDefined();
  const past = { code: 'too-long', hint: expect.stringContaining('at most 64 tokens') };
  await expect(plan(65, 1)).rejects.toMatchObject(past);
  await expect(plan(63, 5)).rejects.toMatchObject({ ...past, message: expect.stringContaining('63, padded to 70,') });
});
