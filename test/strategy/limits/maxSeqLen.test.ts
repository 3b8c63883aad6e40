import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FpdtError } from '../../../src/spec/errors.js';
import { longestSeqLen, maxSeqLen } from '../../../src/strategy/limits/maxSeqLen.js';
import { planRun } from '../../../src/strategy/planRun.js';
import { LLAMA, WITHOUT_ZERO } from '../../spec/inputs.js';
import { asked, fitsWhere } from './toy.js';

const upTo = (most: number) => fitsWhere(({ run }) => run.seqLen <= most);

describe('the longest sequence', () => {
  test('is the last multiple of the granularity that fits; the next is told with what keeps it from a plan', () => {
    fc.assert(
      fc.property(fc.integer({ min: 4, max: 2 ** 30 }), (most) => {
        const found = longestSeqLen(asked(), upTo(most));
        const { seqLen = 0, nextSeqLen, granularityTokens = 1, bound } = found ?? {};
        expect(seqLen).toBeLessThanOrEqual(most);
        expect(seqLen + granularityTokens).toBeGreaterThan(most);
        expect(nextSeqLen).toBe(seqLen + granularityTokens);
        expect(bound?.pools).toMatchObject([{ pool: 'hbm', instant: 'loss', biggest: [{ name: 'made up' }] }]);
        // Four ranks: fine enough for short sequences, and for long ones what 512 chunks divide without padding.
        expect(granularityTokens).toBe(most >= 64 * 2048 ? 2048 : granularityTokens);
        expect(granularityTokens === 4 || granularityTokens <= seqLen / 64).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  test('goes on where longer ones fit again beyond some that do not', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2 ** 16, max: 2 ** 24 }), fc.integer({ min: 1, max: 7 }), (most, eighths) => {
        const island = [most * (1 + (eighths - 0.5) / 8), most * (1 + (eighths + 0.5) / 8)] as const;
        const isEnough = (seqLen: number): boolean => seqLen <= most || (seqLen >= island[0] && seqLen <= island[1]);
        const found = longestSeqLen(
          asked(),
          fitsWhere(({ run }) => isEnough(run.seqLen)),
        );
        expect(found?.seqLen).toBeGreaterThanOrEqual(island[0]);
        expect(found?.seqLen).toBeLessThanOrEqual(island[1]);
        expect(isEnough(found?.nextSeqLen ?? 0)).toBe(false);
      }),
      { numRuns: 30 },
    );
  });

  test('needs no padding for the number of chunks that is asked for', () => {
    const found = longestSeqLen(asked({ run: { numChunks: 48 } }), upTo(1_000_000));
    expect(found?.granularityTokens).toBe(4 * 48 * 8);
    expect(found?.fitting.input.run).toMatchObject({ seqLen: found?.seqLen, paddedSeqLen: found?.seqLen });
  });

  test('looks past short sequences that a forced tile refuses', () => {
    const request = asked({ run: { numChunks: 1, numTokenTiles: 5000 } });
    expect(longestSeqLen(request, upTo(100_000))?.seqLen).toBe(99_328);
    expect(longestSeqLen(request, upTo(10_000))).toBeUndefined();
  });

  test('ends at the learned positions of a model', async () => {
    const model = {
      model_type: 'gpt2',
      n_embd: 64,
      n_layer: 2,
      n_head: 8,
      n_positions: 1000,
      vocab_size: 128,
      attn_pdrop: 0,
      embd_pdrop: 0,
      resid_pdrop: 0,
    };
    const found = await maxSeqLen({ model, cluster: { gpus: 2, gpu: 'cpu' }, run: { numChunks: 1 } });
    expect(found).toMatchObject({
      kind: 'maxSeqLen',
      nextSeqLen: found.seqLen + found.granularityTokens,
      bound: { code: 'too-long', pools: [] },
    });
    expect(found.seqLen).toBeGreaterThan(1000 - found.granularityTokens);
  });

  test('has an end even where all fit', () => {
    const { seqLen, bound } = longestSeqLen(asked(), upTo(Number.POSITIVE_INFINITY)) ?? {};
    expect(seqLen).toBeLessThanOrEqual(2 ** 36);
    expect(bound?.code).toMatch(/^(too-long|plan-too-large)$/);
  });
});

describe('maxSeqLen', () => {
  const request = { model: LLAMA, deepspeed: WITHOUT_ZERO, cluster: { gpus: 2, gpu: 'cpu', hbmBytes: '64M', hostBytes: '16M' } };

  test.each(['auto', 'fpdt', 'ulysses'] as const)('%s: its length is planned, and the next one does not fit', async (policy) => {
    const { seqLen, nextSeqLen, bound, plan } = await maxSeqLen({ ...request, run: { policy } });
    expect(plan.run.seqLen).toBe(seqLen);
    expect(plan).toEqual(await planRun({ ...request, run: { policy, seqLen } }));
    const error: unknown = await planRun({ ...request, run: { policy, seqLen: nextSeqLen } }).catch((problem: unknown) => problem);
    expect(error).toMatchObject({ code: 'does-not-fit', message: bound.message, details: { pools: bound.pools } });
  });

  test('says what would help where no length fits', async () => {
    const error: unknown = await maxSeqLen({ ...request, cluster: { gpus: 2, gpu: 'cpu', hbmBytes: '400K' } }).catch(
      (problem: unknown) => problem,
    );
    expect(error).toMatchObject({ code: 'does-not-fit', message: expect.stringMatching(/^no length fits: HBM does not fit: /) as string });
  });

  test('refuses a length, and tiles that no length has room for', async () => {
    const run = { seqLen: 1024 } as object;
    await expect(maxSeqLen({ ...request, run })).rejects.toMatchObject({ code: 'unknown-key', hint: 'leave run.seqLen out' });
    await expect(maxSeqLen({ ...request, run: { policy: 'ulysses', kvTileChunks: 2 } })).rejects.toThrow(FpdtError);
  });
});
