import { describe, expect, test } from 'vitest';
import { Evaluations } from '../../src/bridge/evaluations.js';
import type { Evaluated } from '../../src/bridge/protocol.js';
import { collect, echoSetup, errorOf, runEcho } from './echoRun.js';
import { PATIENCE_MS } from './patience.js';

const DATA = { data: 'held_out.bin', sequences: null };
const answer = (step: number, changes: Partial<Evaluated> = {}): Evaluated => ({
  digest: 'd',
  step,
  loss: 2,
  numTokens: 64,
  numSequences: 2,
  seconds: 1,
  nonFinite: [],
  ...changes,
});

describe('evaluations', () => {
  test.each([
    [3, 10, [3, 6, 9, 10]],
    [5, 10, [5, 10]],
    [20, 10, [10]],
    [null, 10, [10]],
    [1, 0, [0]],
  ])('every %s of %s steps are after %j', (every, numSteps, expected) => {
    const evaluations = new Evaluations({ ...DATA, every }, numSteps, 1);
    const after = Array.from({ length: numSteps + 1 }, (_, done) => done).filter((done) => evaluations.ask(done));
    expect(after).toEqual(expected);
    expect(evaluations.ask(numSteps)).toBe(false);
  });

  test('are none, and done, without data', () => {
    const evaluations = new Evaluations(null, 4, 2);
    expect(evaluations.ask(4)).toBe(false);
    expect(evaluations.areDone).toBe(true);
    expect(evaluations.due(0)).toBeUndefined();
  });

  test('are over when every rank has answered the last; the slowest counts', () => {
    const evaluations = new Evaluations({ ...DATA, every: 2 }, 4, 2);
    for (const done of [2, 4]) evaluations.ask(done);
    expect(evaluations.due(0)).toBe(2);
    expect(evaluations.answer(0, answer(2))).toBeUndefined();
    expect(evaluations.due(0)).toBe(4);
    expect(evaluations.answer(0, answer(4, { loss: null, nonFinite: ['loss'] }))).toBeUndefined();
    expect(evaluations.answer(1, answer(2, { seconds: 3 }))).toEqual({
      step: 2,
      loss: 2,
      perplexity: Math.exp(2),
      sequences: 2,
      tokens: 64,
      seconds: 3,
    });
    expect(evaluations.areDone).toBe(false);
    expect(evaluations.answer(1, answer(4))).toMatchObject({ step: 4, loss: null, perplexity: null });
    expect(evaluations.areDone).toBe(true);
    expect(evaluations.due(1)).toBeUndefined();
  });

  test('have no perplexity where it is beyond any number', () => {
    const evaluations = new Evaluations({ ...DATA, every: null }, 1, 1);
    evaluations.ask(1);
    expect(evaluations.answer(0, answer(1, { loss: 1e4 }))).toMatchObject({ loss: 1e4, perplexity: null });
  });
});

describe('a run that evaluates', { timeout: PATIENCE_MS }, () => {
  const setup = (fault: string) => ({ options: { ...echoSetup(fault).options, export: 'model', evaluation: { ...DATA, every: 2 } } });

  test('does so between its steps and at the end, before it exports', async () => {
    const run = await runEcho('ok', setup('ok'));
    const types = (await collect(run)).map(({ type }) => type).filter((type) => ['step', 'evaluation', 'exported'].includes(type));
    expect(types.filter((type) => type === 'evaluation')).toHaveLength(2);
    expect(types.at(-1)).toBe('exported');
    expect(types.at(-2)).toBe('evaluation');
    expect((await run.result).evaluations).toEqual([
      { step: 2, loss: 2.5, perplexity: Math.exp(2.5), sequences: 4, tokens: 256, seconds: 1.5 },
      { step: 3, loss: 2.5, perplexity: Math.exp(2.5), sequences: 4, tokens: 256, seconds: 1.5 },
    ]);
  });

  test('may have no step at all', async () => {
    const run = await runEcho('ok', { ...setup('ok'), numSteps: 0 });
    expect(await run.result).toMatchObject({ steps: [], evaluations: [{ step: 0, loss: 2.5 }] });
  });

  test('says which rank failed in it', async () => {
    const error = await errorOf(await runEcho('evaluate@1', setup('evaluate@1')));
    expect(error.message).toBe('rank 1: ValueError: no such token in the held-out data (phase evaluating, step 0)');
  });
});
