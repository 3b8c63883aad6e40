import { describe, expect, test } from 'vitest';
import { parameterTable } from '../../src/catalog/index.js';
import { buildLedger, INSTANTS, type LedgerInput, poolLedger, type ScheduleUse } from '../../src/memory/ledger.js';
import { type MemoryItem, sumBytes } from '../../src/memory/items.js';
import { explainMisfit } from '../../src/memory/misfit.js';
import { type Bend, specs } from '../spec/inputs.js';

const MIB = 1024 ** 2;

const NO_USE = Object.fromEntries(INSTANTS.map((name) => [name, []])) as unknown as ScheduleUse['temporaries'];
const USE: ScheduleUse = {
  extraLayers: 0,
  temporaries: {
    ...NO_USE,
    layerForward: [{ stream: 'compute', section: 'layerForward', bytes: 10 * MIB }],
    layerBackward: [
      { stream: 'comm', section: 'layerBackward', bytes: 8 * MIB },
      { stream: 'compute', section: 'layerBackward', bytes: 30 * MIB },
    ],
  },
};

function ledger(bend: Bend = {}, more: Partial<LedgerInput> = {}) {
  const { model, run, cluster, deepspeed } = specs({
    ...bend,
    deepspeed: { zero_optimization: { stage: 3, reduce_bucket_size: 1000 }, bf16: { enabled: 'auto' }, ...bend.deepspeed },
  });
  return buildLedger({
    model,
    run,
    cluster,
    deepspeed: deepspeed.config,
    parameters: parameterTable(model),
    arenaBytes: { hbm: 100 * MIB, host: 50 * MIB },
    use: USE,
    ...more,
  });
}

describe('a ledger', () => {
  test('is persistent items plus the largest instant, not a sum of instants', () => {
    const hbm = poolLedger(ledger(), 'hbm');
    const persistent = hbm.persistent.reduce((sum, { bytes }) => sum + bytes, 0);
    expect(hbm.instants.map(({ name }) => name)).toEqual([...INSTANTS]);
    for (const instant of hbm.instants) {
      expect(instant.totalBytes).toBe(persistent + instant.items.reduce((sum, { bytes }) => sum + bytes, 0));
    }
    expect(hbm.peakInstant).toBe('layerBackward');
    expect(hbm.peakBytes).toBe(Math.max(...hbm.instants.map(({ totalBytes }) => totalBytes)));
    expect(hbm.persistent).toContainEqual(expect.objectContaining({ name: 'arena', bytes: 100 * MIB, provenance: 'exact' }));
  });

  test('charges the allocator, fixed overheads and temporaries of every stream on a GPU only', () => {
    const names = (bend: Bend): string[] => {
      const hbm = poolLedger(ledger(bend), 'hbm');
      return [...hbm.persistent, ...hbm.instants.flatMap(({ items }) => items)].map(({ name }) => name);
    };
    const onGpu = ['allocator reserve', 'NCCL communicator', 'temporaries of layerBackward on comm'];
    expect(names({})).toContain('temporaries of layerBackward');
    expect(names({}).filter((name) => onGpu.includes(name))).toEqual([]);
    expect(names({ cluster: { gpus: 2, gpu: 'h100-80gb' } })).toEqual(expect.arrayContaining([...onGpu, 'temporaries of layerBackward']));
  });

  test('counts offloaded optimizer states on the host of a GPU; a CPU has one memory, and its pinned pool is the arena alone', () => {
    const zero = { stage: 3, offload_optimizer: { device: 'cpu' } };
    const offloaded = (cluster: object) => ledger({ cluster, deepspeed: { zero_optimization: zero } });
    const names = (gpu: string, pool: string): string[] => poolLedger(offloaded({ gpu }), pool).persistent.map(({ name }) => name);
    expect(names('h100-80gb', 'host')).toContain('Adam states');
    expect(names('h100-80gb', 'hbm')).not.toContain('Adam states');
    expect(names('cpu', 'host')).toEqual(['arena']);
    expect(names('cpu', 'hbm')).toContain('Adam states');
    expect(poolLedger(offloaded({ gpu: 'cpu' }), 'host').load).toEqual({ name: 'load', items: [], totalBytes: 0 });
  });

  test('has the load instant beside those of the program: with overheads, without arena, and it may be the peak', () => {
    const hbm = poolLedger(ledger({ cluster: { gpu: 'h100-80gb' } }), 'hbm');
    const names = hbm.load.items.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['NCCL communicator', 'weight shard', 'allocator reserve']));
    expect(names).not.toContain('arena');
    expect(hbm.load.totalBytes).toBe(hbm.load.items.reduce((sum, { bytes }) => sum + bytes, 0));
    expect(hbm.instants.map(({ name }) => name)).not.toContain('load');
  });

  test('may be fullest at the load, which a misfit then names, with the change that helps', () => {
    const zero = { stage: 3, stage3_max_live_parameters: 0, reduce_bucket_size: 1000 };
    const bend = { model: { vocab_size: 65536 }, run: { dtype: 'bfloat16' }, deepspeed: { zero_optimization: zero } };
    const more = { arenaBytes: { hbm: 1, host: 1 }, use: { extraLayers: 0, temporaries: NO_USE } };
    const hbm = poolLedger(ledger({ ...bend, cluster: { gpus: 64 } }, more), 'hbm');
    expect(hbm.peakInstant).toBe('load');
    expect(hbm.peakBytes).toBe(hbm.load.totalBytes);
    const error = explainMisfit(ledger({ ...bend, cluster: { gpus: 64, hbmBytes: 4 * MIB } }, more));
    expect(error.message).toMatch(
      /^HBM does not fit: 24\.\d MiB needed at load, before the first step, 4 MiB there; largest: unit being made in fp32 16 MiB, /,
    );
    expect(error.hint).toBe('no strategy changes what start-up needs: shard the weights with ZeRO stage 3, or over more ranks');
  });

  test('has a disk where the cluster has one, which holds its arena alone', () => {
    const withDisk = ledger({ cluster: { diskBytes: 200 * MIB } }, { arenaBytes: { hbm: 1, host: 1, disk: 201 * MIB } });
    expect(withDisk.pools.map(({ pool, kind }) => [pool, kind])).toEqual([
      ['hbm', 'device'],
      ['host', 'pinned'],
      ['disk', 'file'],
    ]);
    expect(poolLedger(withDisk, 'disk')).toMatchObject({ peakBytes: 201 * MIB, capacityBytes: 200 * MIB, fits: false });
    expect(withDisk.fits).toBe(false);
  });

  test('knows no pool that the cluster has not', () => {
    expect(() => ledger({}, { arenaBytes: { hbm: 1, nvme: 1 } })).toThrow(/nvme/);
    expect(() => poolLedger(ledger(), 'disk')).toThrow(/no pool disk, only hbm, host/);
  });
});

describe('on a GPU', () => {
  const cuda = { cluster: { gpus: 4, gpu: 'h100-80gb' } };
  const named = (items: readonly MemoryItem[], name: string): number => items.find((item) => item.name === name)?.bytes ?? 0;

  test('the reserve is a share of all that PyTorch allocates: states and what comes and goes, not arenas and overheads', () => {
    const hbm = poolLedger(ledger(cuda), 'hbm');
    const notPyTorch = /^(CUDA|cuBLAS|NCCL|more NCCL|page tables|arena)/;
    for (const instant of [...hbm.instants, hbm.load]) {
      const all = instant.name === 'load' ? instant.items : [...hbm.persistent, ...instant.items];
      const served = all.filter(({ name }) => !notPyTorch.test(name) && name !== 'allocator reserve');
      expect(named(all, 'allocator reserve')).toBe(Math.ceil(0.09 * sumBytes(served)));
    }
    expect(hbm.persistent.find(({ name }) => name === 'Adam states')).toBeDefined();
  });

  test('gathers, ops and reductions have streams of their own and add up; one thread does one after the other', () => {
    const zero = { stage: 3, reduce_bucket_size: 20000, stage3_param_persistence_threshold: 0, stage3_max_live_parameters: 0 };
    const names = (bend: Bend): string[] => {
      const hbm = poolLedger(ledger({ deepspeed: { zero_optimization: zero }, ...bend }), 'hbm');
      return hbm.instants.find(({ name }) => name === 'layerBackward')?.items.map(({ name }) => name) ?? [];
    };
    const passing = ['buffer of gathered weights', 'copies of reduced gradients', 'temporaries of layerBackward'];
    // Weights of layers have 64 * 64 elements and more: a bucket of 20,000 has several.
    expect(names({ ...cuda, run: { dtype: 'bfloat16' } })).toEqual(expect.arrayContaining(passing));
    expect(names({}).filter((name) => passing.includes(name))).toEqual(['temporaries of layerBackward']);
  });

  test('the host has the process, and pages of the arena have entries in tables on both sides', () => {
    const { pools } = ledger(cuda);
    const [hbm, host] = pools.map(({ persistent }) => persistent);
    const pages = (50 * MIB) / 4096;
    expect(named(host ?? [], 'process')).toBe(3 * 1024 ** 3);
    expect(named(host ?? [], 'checkpoint staging')).toBe(16 * MIB);
    expect(named(host ?? [], 'page tables')).toBe(8 * pages);
    expect(named(host ?? [], 'registration of the arena')).toBe(16 * pages);
    expect(named(hbm ?? [], 'page tables of pinned memory')).toBe(8 * pages);
  });

  test('what is offloaded is pinned in blocks of powers of two unless it is told not to be', () => {
    const offloaded = (offload: object): readonly MemoryItem[] => {
      const zero = { stage: 3, offload_optimizer: { device: 'cpu', ...offload }, stage3_max_live_parameters: 0 };
      return poolLedger(ledger({ ...cuda, deepspeed: { zero_optimization: zero } }), 'host').persistent;
    };
    const [pinned, pageable] = [offloaded({}), offloaded({ pin_memory: false })];
    for (const name of ['fp32 gradients', 'pinned gradients']) {
      expect(named(pinned, name)).toBe(2 ** Math.ceil(Math.log2(named(pageable, name))));
      expect(named(pinned, name)).toBeGreaterThan(named(pageable, name));
    }
    expect(named(pinned, 'Adam states')).toBe(named(pageable, 'Adam states'));
  });
});

describe('a misfit', () => {
  const small = ledger({ cluster: { hbmBytes: 64 * MIB, hostBytes: 128 * MIB } });

  test('is the pool that is full, not the other', () => {
    expect([small.fits, ...small.pools.map(({ fits }) => fits)]).toEqual([false, false, true]);
  });

  test('is explained by need, have, instant, the largest items and a change that fits', () => {
    const error = explainMisfit(small, { hint: 'numChunks=8 fits: 60 MiB of 64 MiB', changes: [] });
    expect(error.code).toBe('does-not-fit');
    expect(error.message).toMatch(/^HBM does not fit: 1\d\d MiB needed at layerBackward, 64 MiB there; largest: arena 100 MiB, /);
    expect(error.message).not.toContain('host memory');
    expect(error.hint).toBe('numChunks=8 fits: 60 MiB of 64 MiB');
    expect(error.details).toMatchObject({ pools: [{ pool: 'hbm', haveBytes: 64 * MIB, instant: 'layerBackward' }] });
  });
});
