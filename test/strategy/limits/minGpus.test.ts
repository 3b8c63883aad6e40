import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FpdtError } from '../../../src/spec/errors.js';
import { fewestGpus, minGpus } from '../../../src/strategy/limits/minGpus.js';
import { planRun } from '../../../src/strategy/planRun.js';
import { probe } from '../../../src/strategy/limits/probe.js';
import type { Bend } from '../../spec/inputs.js';
import { LLAMA } from '../../spec/inputs.js';
import { asked, fitsWhere } from './toy.js';

const parseOf =
  (bend: Bend = {}) =>
  (gpus: number) => {
    try {
      return { gpus, input: asked({ ...bend, cluster: { gpus } }) };
    } catch (error) {
      if (error instanceof FpdtError) return error;
      throw error;
    }
  };

describe('the fewest GPUs', () => {
  test('are those that looking at every number finds, where sequences shared by more ranks need less', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.double({ min: 0, max: 1, noNaN: true }), (work, ofReplicas) => {
        // A share of the work is a replica's own, the rest is shared by all ranks.
        const enough = fitsWhere(
          ({ run, cluster }) => (work * (1 - ofReplicas)) / run.sequenceParallelSize + (work * ofReplicas) / cluster.numRanks <= 1,
        );
        const parse = parseOf();
        const all = Array.from({ length: 50 }, (_, i) => i + 1).filter((gpus) => {
          const count = parse(gpus);
          return !(count instanceof FpdtError) && probe(count.input, enough).fits;
        });
        expect(fewestGpus(parse, 50, enough)?.gpus).toBe(all[0]);
      }),
      { numRuns: 15 },
    );
  });

  test('are found among numbers that fit and then no longer fit', () => {
    const sharesByFour = fitsWhere(({ run, cluster }) => run.sequenceParallelSize === 4 && cluster.numRanks >= 11);
    expect(fewestGpus(parseOf(), 1024, sharesByFour)).toMatchObject({
      gpus: 12,
      fewer: expect.arrayContaining([
        expect.objectContaining({ gpus: 11, sequenceParallelSize: 1, dataParallelSize: 11 }),
        expect.objectContaining({ gpus: 10, sequenceParallelSize: 2, dataParallelSize: 5 }),
        expect.objectContaining({ gpus: 8, sequenceParallelSize: 4, dataParallelSize: 2 }),
      ]) as unknown,
    });
  });

  test('are among those that heads and parallel sizes allow', () => {
    const enough = fitsWhere(({ cluster }) => cluster.numRanks >= 7);
    expect(fewestGpus(parseOf({ run: { sequenceParallelSize: 3 } }), 64, enough)).toMatchObject({ gpus: 9, fewer: [{ gpus: 6 }] });
    expect(fewestGpus(parseOf({ run: { dataParallelSize: 5, sequenceParallelSize: 1 } }), 64, enough)).toBeUndefined();
  });
});

describe('minGpus', () => {
  const request = {
    model: LLAMA,
    cluster: { gpu: 'cpu', hbmBytes: '10M', hostBytes: '4M' },
    run: { seqLen: 8192 },
    deepspeed: { train_micro_batch_size_per_gpu: 1 },
  };

  test('plans on the answer as planRun does, and one rank to a sequence less does not fit', async () => {
    const { gpus, fewer, plan } = await minGpus(request);
    expect(gpus).toBeGreaterThan(1);
    expect(plan).toEqual(await planRun({ ...request, cluster: { ...request.cluster, gpus } }));
    expect(fewer.length).toBeGreaterThan(0);
    for (const { gpus: less, bound } of fewer) {
      await expect(planRun({ ...request, cluster: { ...request.cluster, gpus: less } })).rejects.toMatchObject({
        code: 'does-not-fit',
        message: bound.message,
      });
    }
  });

  test('takes a full cluster, whose number of ranks it does not look at', async () => {
    const { plan, gpus } = await minGpus(request);
    const again = await minGpus({ ...request, cluster: { ...plan.cluster, numRanks: 1000, ranksPerNode: 1 } });
    expect([again.gpus, again.plan.strategy]).toEqual([gpus, plan.strategy]);
  });

  test('says why where no number is enough or allowed', async () => {
    await expect(minGpus({ ...request, maxGpus: 1 })).rejects.toMatchObject({
      code: 'does-not-fit',
      message: expect.stringMatching(/^one GPU is not enough: HBM does not fit/) as string,
      hint: expect.stringMatching(/fits/) as string,
    });
    await expect(minGpus({ ...request, run: { seqLen: 8192, sequenceParallelSize: 64 }, maxGpus: 128 })).rejects.toMatchObject({
      code: 'too-many-ranks-for-heads',
    });
    await expect(minGpus({ ...request, cluster: { gpu: 'a100-81gb' }, maxGpus: 4 })).rejects.toMatchObject({ code: 'unknown-device' });
    await expect(minGpus({ ...request, maxGpus: Number.NaN })).rejects.toMatchObject({ code: 'invalid-value' });
    await expect(minGpus({ ...request, maxGpus: 0 })).rejects.toMatchObject({ code: 'invalid-value' });
    await expect(minGpus({ ...request, maxGpus: 1e14 })).rejects.toMatchObject({ code: 'invalid-value', hint: 'give 65536 or less' });
  });
});
