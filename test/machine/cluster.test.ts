import { describe, expect, it } from 'vitest';
import { parseCluster } from '../../src/catalog/clusters.js';
import { DEVICES } from '../../src/catalog/gpus.js';
import { clusterFromFacts } from '../../src/machine/cluster.js';
import type { MachineFacts } from '../../src/machine/facts.js';
import type { FpdtError } from '../../src/spec/errors.js';
import { gpu, MACHINE, withGpu } from './sample.js';

const GIB = 1024 ** 3;

function refusal(facts: MachineFacts, options?: Parameters<typeof clusterFromFacts>[1]): Pick<FpdtError, 'code' | 'message' | 'hint'> {
  try {
    clusterFromFacts(facts, options);
  } catch (error) {
    return error as FpdtError;
  }
  throw new Error('it was taken');
}

describe('clusterFromFacts', () => {
  it('has the counts and sizes of the machine and the rates of the catalog', () => {
    const { cluster, sources } = clusterFromFacts(MACHINE);
    expect(cluster).toEqual({
      gpus: 8,
      gpu: 'a100-80gb',
      ranksPerNode: 8,
      hbmBytes: 79 * GIB,
      hostBytes: Math.floor((0.8 * 1024 * GIB) / 8),
    });
    expect(sources).toEqual([
      "8 of 8 GPUs 'NVIDIA A100-SXM4-80GB': rates of the catalog's a100-80gb, not measured",
      'hbm: 79 GiB a rank, by NVML',
      'host: 102 GiB a rank, 80% of 1 TiB (memory) over 8 ranks',
    ]);
    expect(parseCluster({ ...cluster })).toMatchObject({ numRanks: 8, hbmBytes: 79 * GIB, device: 'cuda', ratesProvenance: 'assumed' });
  });

  it('keeps to the control group, the smallest GPU and the ranks asked for', () => {
    const facts = { ...withGpu({ memoryTotalBytes: 70 * GIB }), cgroup: { memoryLimitBytes: 100 * GIB, cpuLimit: null } };
    const { cluster, sources } = clusterFromFacts(facts, { ranks: 2 });
    expect(cluster).toMatchObject({ gpus: 2, ranksPerNode: 2, hbmBytes: 69 * GIB, hostBytes: 40 * GIB });
    expect(sources[2]).toBe("host: 40 GiB a rank, 80% of 100 GiB (the control group's limit) over 2 ranks");
  });

  it('knows a board by the names of old and new drivers', () => {
    for (const { name, nvmlNames } of DEVICES) {
      for (const known of nvmlNames.flatMap((one) => [one, one.replace('NVIDIA ', '')])) {
        const facts = { ...MACHINE, gpus: [{ ...gpu(0), name: known }] };
        expect(clusterFromFacts(facts).cluster.gpu).toBe(name);
      }
    }
    const names = DEVICES.flatMap(({ nvmlNames }) => nvmlNames);
    expect(new Set(names).size).toBe(names.length);
  });

  it.each<[string, MachineFacts, string, RegExp, RegExp]>([
    [
      'no GPU',
      { ...MACHINE, gpus: [], unknown: { gpus: 'no library' } },
      'no-gpu',
      /no GPU that NVML knows: no library/,
      /fpdt calibrate --model/,
    ],
    [
      'another board',
      { ...MACHINE, gpus: [{ ...gpu(0), name: 'NVIDIA A100 80GB PCIe' }] },
      'unknown-device',
      /no rates of 'NVIDIA A100 80GB PCIe'/,
      /--gpu: .*a100-80gb/,
    ],
    ['two kinds', withGpu({ name: 'NVIDIA H200' }), 'mixed-gpus', /different kinds: NVIDIA H200, NVIDIA A100/, /CUDA_VISIBLE_DEVICES/],
    ['MIG', withGpu({ isMigOn: true }), 'mig-on', /MIG is on at GPU 0/, /nvidia-smi -mig 0/],
    ['no name', withGpu({ name: null }, { 'gpus.0.name': 'why' }), 'unknown-fact', /gpus\.0\.name is not known: why/, /nvidia-smi/],
    [
      'no size',
      withGpu({ memoryTotalBytes: null }, { 'gpus.0.memoryTotalBytes': 'why' }),
      'unknown-fact',
      /memoryTotalBytes is not known: why/,
      /--hbm-bytes/,
    ],
    [
      'no memory',
      { ...MACHINE, memory: { ...MACHINE.memory, totalBytes: null }, unknown: { 'memory.totalBytes': 'why' } },
      'unknown-fact',
      /memory\.totalBytes is not known: why/,
      /--host-bytes/,
    ],
  ])('refuses %s, and says what to do', (_, facts, code, message, hint) => {
    const error = refusal(facts);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.hint).toMatch(hint);
  });

  it('takes the rates of another entry when told, and no more ranks than GPUs', () => {
    const facts = { ...MACHINE, gpus: [{ ...gpu(0), name: 'NVIDIA A100 80GB PCIe' }] };
    expect(clusterFromFacts(facts, { gpu: 'a100-80gb' }).cluster.gpu).toBe('a100-80gb');
    expect(refusal(facts, { gpu: 'a100' }).code).toBe('unknown-device');
    expect(refusal(MACHINE, { ranks: 9 })).toMatchObject({ code: 'usage', hint: 'give 1 to 8' });
  });
});
