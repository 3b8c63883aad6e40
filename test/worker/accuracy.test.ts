/** The core of the benchmark of accuracy: one small shape, of which no time is judged. */
import { expect, it } from 'vitest';
import { accuracyOf, shapeAccuracy } from '../../bench/accuracy/judge.js';
import { runRound } from '../../bench/accuracy/round.js';
import { shapeText, verdictText } from '../../bench/accuracy/text.js';
import { resolvePython } from '../../src/bridge/python.js';

const SHAPE = {
  name: 'small',
  config: {
    model_type: 'llama',
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    vocab_size: 512,
    max_position_embeddings: 1024,
  },
  dtype: 'float32',
  ranks: 2,
  numChunks: 3,
  chunkTokens: 128,
} as const;
/** Done, where ZeRO asks for it, but for free in a plan: nothing waits for it. */
const MAY_BE_FREE = ['rescale', 'release'];

it('every kind of op that ran is planned and measured, with rates that are said to be measured', { tags: ['full'] }, async () => {
  const round = await runRound(SHAPE, { python: resolvePython(), calibrationSeconds: 3, numSteps: 2 });
  expect(round.speedFactor).toBeGreaterThan(0);
  expect(round.runs.map(({ policy }) => policy)).toEqual(['auto', 'fpdt']);
  for (const { policy, comparison, outsideSeconds } of round.runs) {
    expect(comparison.kinds.map(({ kind }) => kind)).toEqual(
      // Whether products are kept, for postBwdKept in the place of postBwd, is for the rates of this machine to say.
      expect.arrayContaining(['attn', 'attnBwd', 'preBwd', 'loss', 'optimizerStep']),
    );
    for (const { kind, plannedSeconds, measuredSeconds, plannedCount, measuredCount } of comparison.kinds) {
      expect(measuredSeconds, `${policy} ${kind}`).toBeGreaterThan(0);
      if (!MAY_BE_FREE.includes(kind)) expect(plannedSeconds, `${policy} ${kind}`).toBeGreaterThan(0);
      expect(Math.min(plannedCount, measuredCount), `${policy} ${kind}`).toBeGreaterThan(0);
    }
    expect(outsideSeconds).toBeGreaterThan(0);
  }
  const accuracy = accuracyOf([shapeAccuracy(SHAPE, [round])]);
  expect(accuracy.numJudged === 0).toBe(accuracy.ok === null);
  expect(shapeText(shapeAccuracy(SHAPE, [round]))).toMatch(/^postBwd +\S/m);
  expect(verdictText(accuracy)).not.toBe('');
});
