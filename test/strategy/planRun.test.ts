import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BACKWARD_ORDERS, POLICIES } from '../../src/spec/strategy.js';
import type { ExecutionPlan } from '../../src/plan/executionPlan.js';
import { type PlanInput, planRun } from '../../src/strategy/planRun.js';
import { LLAMA } from '../spec/inputs.js';

const MISTRAL = { ...LLAMA, model_type: 'mistral' };

function input(
  run: object,
  { model = {}, cluster = {}, deepspeed = {} }: Partial<Record<'model' | 'cluster' | 'deepspeed', object>> = {},
): PlanInput {
  return {
    model: { ...LLAMA, ...model },
    cluster: { gpus: 4, gpu: 'a100-80gb', diskBytes: 2 ** 32, ...cluster },
    run: { seqLen: 1000, ...run } as PlanInput['run'],
    deepspeed: { train_micro_batch_size_per_gpu: 1, bf16: { enabled: 'auto' }, ...deepspeed },
  };
}

describe('planRun', () => {
  test('every strategy that may be asked for makes a plan that the verifier finds legal', async () => {
    await fc.assert(
      fc.asyncProperty(anyRun, fc.boolean(), fc.constantFrom(0, 1, 2, 3), async (run, tied, stage) => {
        const plan = await planRun(input(run, { model: { tie_word_embeddings: tied }, deepspeed: { zero_optimization: { stage } } }));
        expect(plan.strategy).toMatchObject({ numChunks: run.numChunks, hiddenGradients: run.strategy.hiddenGradients });
        for (const [i, layer] of run.strategy.layers.entries()) {
          const { segments: _, ...places } = layer;
          expect(plan.strategy.layers[i]).toMatchObject(places);
        }
      }),
      { numRuns: 60 },
    );
  });

  test.each(POLICIES)('%s plans a sliding window on a kernel that has one', async (policy) => {
    for (const sliding_window of [1, 100, 400, 5000]) {
      const chunks = ['fpdt', 'auto'].includes(policy) ? { numChunks: 5, kvTileChunks: 2 } : {};
      const plan = await planRun(input({ policy, ...chunks }, { model: { ...MISTRAL, sliding_window } }));
      const masks = plan.attributes.flatMap(({ mask }) => (mask?.kind === 'window' ? [mask.window] : []));
      expect(masks).toEqual(sliding_window < 1000 ? [sliding_window] : []);
      expect(plan.kernels.attn).toBe('flash2');
    }
  });

  test('a window that no token of the sequence sees the end of, whatever padding does, is none, on any kernel', async () => {
    const of = (sliding_window: number | null): Promise<ExecutionPlan> =>
      planRun(input({ seqLen: 1000, numChunks: 3, attention: 'cudnn' }, { model: { ...MISTRAL, sliding_window } }));
    const plan = await of(1000);
    expect(plan.run.paddedSeqLen).toBeGreaterThan(1000);
    const without = await of(null);
    expect([plan.model.windows, plan.attributes, plan.sections]).toEqual([without.model.windows, without.attributes, without.sections]);
    await expect(of(999)).rejects.toThrow("the attention kernel 'cudnn' has no sliding window");
  });

  test.each([
    [{ seqLen: '2M', numChunks: 32 }, 524_288],
    [{ seqLen: '2M', numChunks: 16, kvTileChunks: 6, policy: 'fpdt' }, 524_288],
    // A rank's 50,000 rows of a chunk are 391 tiles of 128.
    [{ seqLen: '1600000', numChunks: 8 }, 400_384],
    [{ seqLen: '2M', numChunks: 2 }, 1_048_576],
    [{ seqLen: '512K', numChunks: 4 }, 524_288],
    [{ seqLen: '1M', policy: 'ulysses' }, 1_048_576],
  ])('%j: an attention op sees 512K keys, a chunk of more of them, or all where there are fewer', async (run, most) => {
    const { sections } = await planRun(input(run, { model: { vocab_size: 2 } }));
    const lengths = sections.flatMap(({ ops }) => ops.flatMap(({ kv }) => (kv === undefined ? [] : [kv.end - kv.start])));
    expect(Math.max(...lengths)).toBe(most);
  });

  test('heads that ranks do not share evenly, tokens that chunks do not, one rank', async () => {
    for (const [gpus, heads, kvHeads] of [
      [3, 8, 4],
      [4, 8, 2],
      [8, 8, 4],
      [1, 8, 8],
    ]) {
      const model = { num_attention_heads: heads, num_key_value_heads: kvHeads };
      const plan = await planRun(
        input({ seqLen: 997, numChunks: 3, policy: 'fpdt', sequenceParallelSize: gpus }, { model, cluster: { gpus } }),
      );
      expect(plan.run.paddedSeqLen).toBe(plan.strategy.numChunks * plan.strategy.chunkTokens);
    }
  });

  test('the same input makes the same plan, another input another', async () => {
    const digest = async (run: object): Promise<string> => (await planRun(input(run))).digest;
    const [first, again, other] = await Promise.all([
      digest({ policy: 'fpdt' }),
      digest({ policy: 'fpdt' }),
      digest({ policy: 'fpdt', seed: 1 }),
    ]);
    expect(again).toBe(first);
    expect(other).not.toBe(first);
  });

  test('refuses a plan of too many ops before it builds it', async () => {
    const layers = [
      { layers: [0, 2], backwardOrder: 'keyValueOuterAscending', keyValues: 'host', attentionOutput: 'recompute' },
      { layers: [2, 4], backwardOrder: 'keyValueOuterAscending', keyValues: 'host', attentionOutput: 'recompute', checkpoints: 'host' },
    ];
    const run = { seqLen: 8 * 1024, numChunks: 1024, strategy: { layers } };
    await expect(planRun(input(run))).rejects.toMatchObject({
      code: 'plan-too-large',
      hint: expect.stringMatching(/^use kvTileChunks=\d+, /),
    });
  });
});

const device = fc.constantFrom('hbm', 'host');
const anyPlace = fc.constantFrom('hbm', 'host', 'disk');
const anyLayers = fc.record({
  keyValues: device,
  keyValueGradients: device,
  attentionOutput: fc.oneof(anyPlace, fc.constant('recompute')),
  rebuiltOutput: fc.oneof(anyPlace, fc.constant('recompute')),
  internals: fc.oneof(anyPlace, fc.constant('recompute')),
  rebuildsLast: fc.boolean(),
  checkpoints: anyPlace,
  backwardOrder: fc.constantFrom(...BACKWARD_ORDERS),
  segments: fc.integer({ min: 1, max: 2 }),
});
/** Two ranges of two layers each. */
const anyRun = fc
  .record({
    numChunks: fc.integer({ min: 1, max: 7 }),
    kvTileChunks: fc.integer({ min: 1, max: 3 }),
    prefetchDepth: fc.integer({ min: 1, max: 3 }),
    numTokenTiles: fc.integer({ min: 1, max: 3 }),
    numLossTiles: fc.integer({ min: 1, max: 3 }),
    attention: fc.constantFrom('flash2', 'reference'),
    hiddenGradients: device,
    layers: fc.tuple(anyLayers, anyLayers),
  })
  .map(({ numChunks, kvTileChunks, hiddenGradients, layers, ...run }) => ({
    ...run,
    numChunks,
    kvTileChunks: Math.min(kvTileChunks, numChunks),
    strategy: {
      hiddenGradients,
      layers: layers.map((one, i) => {
        const isOuter = one.backwardOrder === 'keyValueOuterAscending';
        return { ...one, layers: [2 * i, 2 * i + 2], ...(isOuter ? { keyValueGradients: 'hbm' } : {}) };
      }),
    },
  }));
