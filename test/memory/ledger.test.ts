import { describe, expect, test } from 'vitest';
import { parameterTable } from '../../src/catalog/index.js';
import { buildLedger, INSTANTS, type LedgerInput } from '../../src/memory/ledger.js';
import { explainMisfit } from '../../src/memory/misfit.js';
import { type Bend, specs } from '../spec/inputs.js';

const MIB = 1024 ** 2;

function ledger(bend: Bend = {}, more: Partial<LedgerInput> = {}) {
  const { model, run, cluster, deepspeed } = specs({ deepspeed: { zero_optimization: { stage: 3, reduce_bucket_size: 1000 } }, ...bend });
  return buildLedger({
    model,
    run,
    cluster,
    deepspeed: deepspeed.config,
    parameters: parameterTable(model),
    arenas: { hbm: 100 * MIB, host: 50 * MIB },
    scratch: { layerForward: 10 * MIB, layerBackward: 30 * MIB, embedForward: 0 },
    ...more,
  });
}

describe('a ledger', () => {
  test('is persistent items plus the largest instant, not a sum of instants', () => {
    const { hbm } = ledger();
    const persistent = hbm.persistent.reduce((sum, { bytes }) => sum + bytes, 0);
    expect(hbm.instants.map(({ name }) => name)).toEqual([...INSTANTS]);
    for (const instant of hbm.instants) {
      expect(instant.totalBytes).toBe(persistent + instant.items.reduce((sum, { bytes }) => sum + bytes, 0));
    }
    expect(hbm.peakInstant).toBe('layerBackward');
    expect(hbm.peakBytes).toBe(Math.max(...hbm.instants.map(({ totalBytes }) => totalBytes)));
    expect(hbm.persistent).toContainEqual(expect.objectContaining({ name: 'arena', bytes: 100 * MIB, provenance: 'exact' }));
  });

  test('charges the allocator and fixed overheads on a GPU only', () => {
    const names = (bend: Bend): string[] => {
      const { hbm } = ledger(bend);
      return [...hbm.persistent, ...hbm.instants.flatMap(({ items }) => items)].map(({ name }) => name);
    };
    expect(names({})).not.toContain('allocator reserve');
    expect(names({ cluster: { gpu: 'h100-80gb' } })).toEqual(expect.arrayContaining(['allocator reserve', 'NCCL communicators']));
  });

  test('counts offloaded optimizer states on the host', () => {
    const zero = { stage: 3, offload_optimizer: { device: 'cpu' } };
    const offloaded = ledger({ deepspeed: { zero_optimization: zero } });
    expect(offloaded.host.persistent.map(({ name }) => name)).toContain('Adam states');
    expect(offloaded.hbm.persistent.map(({ name }) => name)).not.toContain('Adam states');
  });
});

describe('a misfit', () => {
  const small = ledger({ cluster: { hbmBytes: 64 * MIB, hostBytes: 128 * MIB } });

  test('is the pool that is full, not the other', () => {
    expect([small.fits, small.hbm.fits, small.host.fits]).toEqual([false, false, true]);
  });

  test('is explained by need, have, instant, the largest items and a change that fits', () => {
    const error = explainMisfit(small, 'numChunks=8 fits: 60 MiB of 64 MiB');
    expect(error.code).toBe('does-not-fit');
    expect(error.message).toMatch(/^HBM does not fit: 1\d\d MiB needed at layerBackward, 64 MiB there; largest: arena 100 MiB, /);
    expect(error.message).not.toContain('host memory');
    expect(error.hint).toBe('numChunks=8 fits: 60 MiB of 64 MiB');
    expect(error.details).toMatchObject({ pools: [{ pool: 'hbm', haveBytes: 64 * MIB, instant: 'layerBackward' }] });
  });
});
