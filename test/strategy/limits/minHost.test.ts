import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { leastHostBytes, minHost } from '../../../src/strategy/limits/minHost.js';
import { probe } from '../../../src/strategy/limits/probe.js';
import { planRun } from '../../../src/strategy/planRun.js';
import { LLAMA, WITHOUT_ZERO } from '../../spec/inputs.js';
import { asked, needs } from './toy.js';

describe('the least host memory', () => {
  test('is the least multiple of the granularity that fits', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 2 ** 42 }), (host) => {
        const {
          hostBytes = 0,
          granularityBytes = 0,
          less,
        } = leastHostBytes(
          asked(),
          needs(() => ({ host })),
        ) ?? {};
        expect(hostBytes).toBeGreaterThanOrEqual(host);
        expect(hostBytes - granularityBytes).toBeLessThan(host);
        expect(granularityBytes).toBeLessThanOrEqual(Math.max(1, host / 256));
        expect(less).toMatchObject({ hostBytes: hostBytes - granularityBytes, bound: { code: 'does-not-fit', pools: [{ pool: 'host' }] } });
      }),
      { numRuns: 30 },
    );
  });

  test('is told by how much it is missed where that is little', () => {
    const host = 64 * 2 ** 30 + 2 ** 20;
    const looked = probe(
      asked({ cluster: { hostBytes: '64G' } }),
      needs(() => ({ host })),
    );
    expect(looked).toMatchObject({
      fits: false,
      bound: { message: expect.stringContaining('64 GiB there, 1 MiB too much; largest') as string },
    });
  });

  test('is nothing where nothing is in host memory', () => {
    expect(
      leastHostBytes(
        asked(),
        needs(() => ({})),
      ),
    ).toMatchObject({ hostBytes: 0, less: null });
  });
});

describe('minHost', () => {
  const request = { model: LLAMA, deepspeed: WITHOUT_ZERO, cluster: { gpus: 2, gpu: 'cpu', hbmBytes: '16M' }, run: { seqLen: 16_384 } };

  test('plans in the answer as planRun does, and less does not fit', async () => {
    const { hostBytes, less, plan } = await minHost({ ...request, cluster: { ...request.cluster, hostBytes: 1 } });
    expect(hostBytes).toBeGreaterThan(0);
    expect(plan).toEqual(await planRun({ ...request, cluster: { ...request.cluster, hostBytes } }));
    const tooSmall = planRun({ ...request, cluster: { ...request.cluster, hostBytes: less?.hostBytes ?? 0 } });
    await expect(tooSmall).rejects.toMatchObject({ code: 'does-not-fit', message: less?.bound.message });
  });

  test('says why where no host memory is enough', async () => {
    await expect(minHost({ ...request, cluster: { ...request.cluster, hbmBytes: '1M' } })).rejects.toMatchObject({
      code: 'does-not-fit',
      message: expect.stringMatching(/^no host memory is enough: HBM does not fit/) as string,
    });
  });
});
