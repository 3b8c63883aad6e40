import { describe, expect, test } from 'vitest';
import { mulberry32 } from '../../src/address/layout.js';
import { FpdtError } from '../../src/spec/errors.js';
import type { JsonObject } from '../../src/spec/parseJson.js';
import { POLICIES } from '../../src/spec/strategy.js';
import { type PlanInput, planRun } from '../../src/strategy/planRun.js';
import { type Named, PUBLISHED, read, SEED } from './searchInputs.js';

const SMALL = Object.entries(read('test/families.json') as Record<string, JsonObject>).map(([name, config]): Named => ({ name, config }));

const GPUS = ['h100-80gb', 'a100-40gb', 'l40s', 'rtx-4090', 'mi300x', 'b200', 'gh200', 'h100-nvl'];

/** Anything that may be asked for together, sensible or not. */
function anyRequest(next: () => number, models: readonly Named[], lengths: readonly (string | number)[]): PlanInput & { name: string } {
  const one = <T>(values: readonly T[]): T => values[Math.floor(next() * values.length)] as T;
  const some = <T>(key: string, share: number, values: readonly T[]): Record<string, T> => (next() < share ? { [key]: one(values) } : {});
  const { name, config } = one(models);
  const run = {
    seqLen: one(lengths),
    ...some('policy', 0.3, POLICIES),
    ...some('numChunks', 0.2, [1, 2, 3, 7, 16, 64]),
    ...some('kvTileChunks', 0.15, [1, 2, 4, 8]),
    ...some('segmentLayers', 0.15, [1, 2, 3, 40]),
    ...some('headGroups', 0.15, [1, 2, 4]),
    ...some('sequenceParallelSize', 0.15, [1, 2, 4, 8, 16]),
    ...some('packing', 0.1, [true]),
    ...some('prefetchDepth', 0.1, [1, 3]),
    ...some('hbmReserve', 0.1, [0, 0.2, 0.9]),
    ...some('numLossTiles', 0.1, [1, 64]),
    ...some('numTokenTiles', 0.1, [1, 64]),
    ...some('attention', 0.1, ['flash2', 'cudnn', 'flash3', 'reference']),
    ...some('kernels', 0.1, ['plain']),
    ...some('strategy', 0.1, [{ hiddenGradients: 'host' }, { layers: [{ layers: [0, 1], attentionOutput: 'recompute' }] }]),
  };
  const cluster = {
    gpus: one([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 100, 1024]),
    gpu: one(GPUS),
    ...some('hostBytes', 0.5, ['1G', '32G', '480G', '2T']),
    ...some('diskBytes', 0.2, ['100G', '10T']),
    ...some('ranksPerNode', 0.1, [1, 2, 4, 8]),
  };
  const offload = { device: one(['cpu', 'nvme', 'none']), pin_memory: true, nvme_path: '/nvme' };
  const deepspeed = {
    train_micro_batch_size_per_gpu: one([1, 1, 2]),
    zero_optimization: {
      stage: one([0, 1, 2, 3, 3, 3]),
      ...some('offload_optimizer', 0.3, [offload]),
      ...some('offload_param', 0.2, [offload]),
    },
    ...one([{ bf16: { enabled: true } }, { fp16: { enabled: true } }, {}]),
    ...some('gradient_accumulation_steps', 0.2, [4]),
    ...some('optimizer', 0.2, [
      { type: 'Lion', params: { lr: 1e-4 } },
      { type: 'SGD', params: { lr: 1e-4 } },
    ]),
  };
  return { name, model: config, cluster, run, deepspeed } as unknown as PlanInput & { name: string };
}

/** What of so many requests neither becomes a plan nor an error that says what to change. */
async function defects(
  count: number,
  models: readonly Named[],
  lengths: readonly (string | number)[],
  seed = SEED,
): Promise<readonly string[]> {
  const next = mulberry32(seed);
  const found: string[] = [];
  let planned = 0;
  for (let i = 0; i < count; i++) {
    const { name, ...request } = anyRequest(next, models, lengths);
    try {
      await planRun(request);
      planned += 1;
    } catch (error) {
      if (error instanceof FpdtError && error.hint !== undefined) continue;
      const { model: _, ...rest } = request;
      found.push(`SEED=${seed} ${name} ${JSON.stringify(rest)}: ${error instanceof Error ? error.stack : String(error)}`);
    }
  }
  expect(planned).toBeGreaterThan(0);
  return found;
}

describe('a request becomes a plan or an error with a hint', () => {
  test('of small models', async () => {
    expect(await defects(40, SMALL, [1, 4097, '8K', '64K'], 1)).toEqual([]);
  });

  test('of published ones', { tags: ['full'] }, async () => {
    expect(await defects(400, [...SMALL, ...PUBLISHED], [1, '8K', 100_000, '1M', '4M', '15M', '64M'])).toEqual([]);
  });
});
