import { describe, expect, it } from 'vitest';
import { machineChecks } from '../../src/machine/checks.js';
import { numUsableCpus, parseList, usableMemoryBytes } from '../../src/machine/derived.js';
import type { MachineFacts } from '../../src/machine/facts.js';
import { gpu, MACHINE, withGpu } from './sample.js';

const GIB = 1024 ** 3;
const warningsOf = (facts: MachineFacts): readonly string[] =>
  machineChecks(facts)
    .filter(({ status }) => status !== 'ok')
    .map(({ name, found }) => `${name}: ${found}`);

describe('machineChecks', () => {
  it('finds nothing wrong with a machine in good order, and tells all of it', () => {
    const checks = machineChecks(MACHINE);
    expect(warningsOf(MACHINE)).toEqual([]);
    expect(checks.map(({ name, found }) => `${name}: ${found}`)).toEqual([
      'cpus: 0-31 allowed',
      'numa 0: CPUs 0-15, memory 512 GiB',
      'numa 1: CPUs 16-31, memory 512 GiB',
      'memory: 1 TiB, 1000 GiB available',
      'memlock: unlimited',
      'huge pages: 0 of 2 MiB reserved, 0 of them free; transparent ones: madvise',
      'nvml: driver 550.54.15, 8 GPUs',
      ...Array.from(
        { length: 8 },
        (_, i) =>
          `gpu ${i}: NVIDIA A100-SXM4-80GB at 0000:${i}0:00.0, 79 GiB, PCIe 4 x16, 12 NVLinks (peers: switch 1), NUMA node ${i < 4 ? 0 : 1}, MIG off, ECC on`,
      ),
    ]);
  });

  it.each<[string, MachineFacts, readonly string[]]>([
    ['fewer lanes', withGpu({ pcieWidth: 8 }), ['gpu 0: PCIe has 8 of 16 lanes']],
    ['an older generation', withGpu({ pcieGeneration: 1 }), ['gpu 0: PCIe runs at generation 1 of 4']],
    ['MIG', withGpu({ isMigOn: true }), ['gpu 0: MIG is on: a process sees one instance of it']],
    ['another program', withGpu({ memoryFreeBytes: 60 * GIB }), ['gpu 0: 19 GiB are in use']],
    [
      'CPUs of the other node alone',
      { ...withGpu({ numaNode: 1 }), gpus: [gpu(0), gpu(4)], cpus: { online: '0-31', allowed: '0-7' } },
      ['gpu 4: on NUMA node 1, but this process may run on CPUs 0-7 of other nodes only'],
    ],
    [
      'a port that two share',
      { ...MACHINE, gpus: [gpu(0), { ...gpu(1), pcieBridges: ['pci0000:0a', '0000:0a:02.0', '0000:0b:00.0'] }] },
      ['gpus 0, 1: share the PCIe port 0000:0a:02.0'],
    ],
    [
      'a control group below the memory',
      { ...MACHINE, cgroup: { memoryLimitBytes: 100 * GIB, cpuLimit: 'unlimited' } },
      ['memory: 1 TiB, 1000 GiB available; the control group is limited to 100 GiB'],
    ],
    [
      'little memory to lock',
      { ...MACHINE, memlock: { softBytes: 65536, hardBytes: 65536 } },
      ['memlock: 64 KiB, less than a pinned arena of 102 GiB a rank'],
    ],
    [
      'less time than GPUs',
      { ...MACHINE, cgroup: { memoryLimitBytes: 'unlimited', cpuLimit: 3.5 } },
      ['cpus: 0-31 allowed, the control group gives the time of 3.5'],
    ],
    [
      'a GPU that does not answer',
      { ...MACHINE, unknown: { gpus: 'GPU 8: GPU is lost (error 15)' } },
      ['nvml: driver 550.54.15, 8 GPUs; GPU 8: GPU is lost (error 15)'],
    ],
  ])('warns of %s, and says what to do', (_, facts, expected) => {
    expect(warningsOf(facts)).toEqual(expected);
    for (const { status, hint } of machineChecks(facts)) expect(hint !== undefined).toBe(status === 'warning');
  });

  it('pins nothing where there is no GPU', () => {
    const facts = { ...MACHINE, gpus: [], driverVersion: null, unknown: { gpus: 'no library', driverVersion: 'no library' } };
    expect(warningsOf({ ...facts, memlock: { softBytes: 65536, hardBytes: 65536 } })).toEqual(['nvml: no library']);
  });

  it('gives the reason of what is not known', () => {
    const fields = ['busId', 'name', 'memoryTotalBytes', 'pcieWidth', 'numNvlinks', 'numaNode', 'isMigOn', 'isEccOn'] as const;
    const facts = withGpu(
      Object.fromEntries(fields.map((field) => [field, null])),
      Object.fromEntries(fields.map((field) => [`gpus.0.${field}`, `why ${field}`])),
    );
    const found = machineChecks(facts).find(({ name }) => name === 'gpu 0')?.found;
    for (const field of fields) expect(found).toContain(`why ${field}`);
    const bare = {
      ...MACHINE,
      memory: { ...MACHINE.memory, totalBytes: null },
      cpus: { online: null, allowed: null },
      memlock: { softBytes: null, hardBytes: null },
      numaNodes: [],
      unknown: { 'memory.totalBytes': 'a', 'cpus.allowed': 'b', 'memlock.softBytes': 'c', numaNodes: 'd' },
    };
    expect(
      machineChecks(bare)
        .slice(0, 4)
        .map(({ found: said }) => said),
    ).toEqual(['not known: b', 'not known: d', 'not known: a', 'not known: c']);
  });
});

describe('what follows from facts', () => {
  it('is the lower of what there is and what is allowed', () => {
    expect(usableMemoryBytes(MACHINE)).toBe(1024 * GIB);
    expect(usableMemoryBytes({ ...MACHINE, cgroup: { memoryLimitBytes: 5, cpuLimit: null } })).toBe(5);
    expect(numUsableCpus(MACHINE)).toBe(32);
    expect(numUsableCpus({ ...MACHINE, cgroup: { memoryLimitBytes: null, cpuLimit: 2 } })).toBe(2);
  });

  it('reads lists as the kernel writes them', () => {
    expect(parseList('0-3,8,10-11')).toEqual([0, 1, 2, 3, 8, 10, 11]);
    expect(parseList('')).toEqual([]);
  });
});
