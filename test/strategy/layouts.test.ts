/** Plans on more ranks than there are key/value heads, and on ranks that the query heads do not divide over. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type ExecutionPlan, planRun } from '../../src/index.js';
import { kvCopies, ownHeads, ownKvHeads, paddedHeads } from '../../src/spec/parallelLayout.js';
import { readJsonObject } from '../../src/spec/parseJson.js';

const LLAMA = fileURLToPath(new URL('../../examples/llama-3-8b.json', import.meta.url));
const DEEPSPEED = { train_micro_batch_size_per_gpu: 1, zero_optimization: { stage: 3 }, bf16: { enabled: 'auto' } };

const plan = (gpus: number, sequenceParallelSize: number, model: Parameters<typeof planRun>[0]['model'] = LLAMA): Promise<ExecutionPlan> =>
  planRun({
    model,
    cluster: { gpus, gpu: 'h100-80gb', hostBytes: '480G' },
    run: { seqLen: '1M', sequenceParallelSize },
    deepspeed: DEEPSPEED,
  });

/** Bytes that one rank's share of one chunk's q, k and v has after the exchange. */
function exchangedBytes({ sections, buffers, streams }: ExecutionPlan): number {
  expect(streams).toContain('comm');
  const op = sections.find(({ name }) => name === 'layerForward')?.ops.find(({ kind }) => kind === 'toHeads');
  return (op?.writes ?? []).reduce((sum, { buffer, rows }) => {
    const [, ...inner] = buffers[buffer]?.shape ?? [];
    return sum + (rows.end - rows.start) * inner.reduce((product, size) => product * size, 2);
  }, 0);
}

describe('sequence parallel sizes that do not divide the key/value heads', () => {
  it.each([32, 1024])('Llama-3-8B on %i GPUs, 32 ranks to a sequence: each key/value head on four of them', async (gpus) => {
    const { layout, run, features, ...rest } = await plan(gpus, 32);
    expect([ownHeads(layout), ownKvHeads(layout), kvCopies(layout), paddedHeads(layout)]).toEqual([1, 1, 4, 0]);
    expect(run.dataParallelSize).toBe(gpus / 32);
    expect(features).toContain('kv-copies');
    expect(rest.prediction.byKind.toHeads?.seconds).toBeGreaterThan(0);
  });

  it('28 query and 4 key/value heads on 8 ranks: copied, and padded to 32', async () => {
    const model = { ...readJsonObject(LLAMA, 'model'), num_attention_heads: 28, num_key_value_heads: 4, hidden_size: 3584, head_dim: 128 };
    const made = await plan(8, 8, model);
    expect([ownHeads(made.layout), ownKvHeads(made.layout), kvCopies(made.layout), paddedHeads(made.layout)]).toEqual([4, 1, 2, 4]);
    expect(made.features).toEqual(expect.arrayContaining(['kv-copies', 'padded-heads']));
  });

  it('an exchange costs the copies that it makes', async () => {
    const [shared, copied] = await Promise.all([plan(32, 8), plan(32, 32)]);
    const perToken = (one: ExecutionPlan): number => exchangedBytes(one) / one.strategy.chunkTokens;
    // 4 query heads with 1 of keys and 1 of values; then 1 of each.
    expect([perToken(shared), perToken(copied)]).toEqual([6 * 128 * 2, 3 * 128 * 2]);
  });
});
