/** The addon over a machine of files and a fake NVML: every fact, and every way not to have one. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MachineFacts } from '../../src/machine/facts.js';
import { readMachineFacts } from '../../src/machine/read.js';
import { type FactSources, loadNativeAddon } from '../../src/native.js';
import { compile, compileNvml, type Files, FILES, writeMachine } from './fakeMachine.js';

const GIB = 1024 ** 3;
const HERE = fileURLToPath(new URL('.', import.meta.url));
const NATIVE = fileURLToPath(new URL('../../native/', import.meta.url));
/** What the kernel says of this process. */
const ALLOWED = /Cpus_allowed_list:\s*(\S+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fpdt-facts-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const newFolder = (): string => mkdtempSync(join(folder, 'machine-'));
const machine = (files: Files, ...defines: readonly string[]): FactSources => {
  const own = newFolder();
  return writeMachine(own, files, compileNvml(own, ...defines));
};
const factsOf = (files: Files, ...defines: readonly string[]): MachineFacts => readMachineFacts(machine(files, ...defines));

describe('machineFacts', () => {
  it('has every fact of a machine', () => {
    const { memlock, ...facts } = factsOf(FILES);
    const gpu = {
      name: 'NVIDIA A100-SXM4-80GB',
      memoryTotalBytes: 85_899_345_920,
      memoryReservedBytes: 650_000_000,
      pcieMaxGeneration: 4,
      pcieMaxWidth: 16,
      numNvlinks: 12,
      isEccOn: true,
    };
    expect(facts).toEqual({
      kind: 'machineFacts',
      driverVersion: '550.54.15',
      gpus: [
        {
          ...gpu,
          index: 0,
          memoryFreeBytes: 84e9,
          busId: '0000:4e:00.0',
          pcieGeneration: 4,
          pcieWidth: 16,
          pcieBridges: ['pci0000:4a', '0000:4a:02.0', '0000:4b:00.0'],
          numaNode: 0,
          nvlinkPeers: [{ busId: '0000:b7:00.0', kind: 'gpu', numLinks: 12 }],
          isMigOn: false,
        },
        {
          ...gpu,
          index: 1,
          memoryFreeBytes: 70e9,
          busId: '0000:b7:00.0',
          pcieGeneration: 1,
          pcieWidth: 8,
          pcieBridges: ['pci0000:4a', '0000:4a:02.0', '0000:4c:00.0'],
          numaNode: 1,
          nvlinkPeers: [{ busId: '0000:4e:00.0', kind: 'gpu', numLinks: 12 }],
          isMigOn: true,
        },
      ],
      numaNodes: [
        { node: 0, cpus: '0-1', memoryTotalBytes: 32 * GIB, memoryFreeBytes: 16 * GIB },
        { node: 1, cpus: '1000-1001', memoryTotalBytes: 32 * GIB, memoryFreeBytes: GIB },
      ],
      memory: {
        totalBytes: 64 * GIB,
        availableBytes: 48 * GIB,
        hugePageBytes: 2 * 1024 ** 2,
        numHugePages: 16,
        numFreeHugePages: 4,
        transparentHugePages: 'madvise',
      },
      cgroup: { memoryLimitBytes: 48 * GIB, cpuLimit: 1.5 },
      cpus: { online: '0-1,1000-1001', allowed: ALLOWED },
      unknown: {},
    });
    expect(Object.keys(memlock)).toEqual(['softBytes', 'hardBytes']);
  });

  it('reads this machine without a crash', () => {
    const facts = readMachineFacts();
    expect(facts.memory.totalBytes).toBeGreaterThan(0);
    expect(facts.cpus.allowed).toBe(ALLOWED);
  });

  it('has the limits of the process itself', () => {
    const script = `process.stdout.write(require(${JSON.stringify(join(NATIVE, 'build', 'fpdt.node'))}).machineFacts({}))`;
    const facts = JSON.parse(
      execFileSync('bash', ['-c', 'ulimit -S -l 64; exec "$@"', 'bash', process.execPath, '-e', script], { encoding: 'utf8' }),
    ) as MachineFacts;
    expect(facts.memlock.softBytes).toBe(64 * 1024);
  });

  it('takes nothing but text as a source', () => {
    const loaded = loadNativeAddon();
    if (!('addon' in loaded)) throw new Error(loaded.reason);
    expect(() => loaded.addon.machineFacts({ sysRoot: 5 as unknown as string })).toThrow('sysRoot is no string');
    expect(() => loaded.addon.machineFacts(undefined as unknown as FactSources)).toThrow(TypeError);
  });
});

describe('NVML', () => {
  it.each([
    [['INIT_CODE=9'], /^nvmlInit_v2: Driver Not Loaded \(error 9\)$/],
    [['INIT_CODE=9', 'NO_ERROR_STRING'], /^nvmlInit_v2: error 9$/],
    [['NO_INIT'], /\.so has no nvmlInit_v2$/],
    [['WILD'], /\.so says that there are 4000000000 GPUs$/],
  ])('%j: no GPUs, and why', (defines, reason) => {
    const { gpus, unknown } = factsOf(FILES, ...defines);
    expect(gpus).toEqual([]);
    expect(unknown['gpus']).toMatch(reason);
  });

  it('that is not installed, or is no library, is a reason', () => {
    const sources = writeMachine(newFolder(), FILES);
    expect(readMachineFacts(sources).unknown['gpus']).toMatch(/libnvidia-ml\.so\.1: cannot open shared object file/);
    const text = readMachineFacts({ ...sources, nvmlLibrary: join(HERE, 'fakeNvml.cc') });
    expect(text.unknown['gpus']).toMatch(/fakeNvml\.cc: (?:invalid ELF header|file too short)/);
    expect(text.driverVersion).toBeNull();
  });

  it('of an old driver has memory without what is reserved', () => {
    const { gpus, unknown } = factsOf(FILES, 'NO_MEMORY_V2');
    expect(gpus[0]).toMatchObject({ memoryTotalBytes: 85_899_345_920, memoryFreeBytes: 84e9, memoryReservedBytes: null });
    expect(unknown['gpus.0.memoryReservedBytes']).toMatch(/has no nvmlDeviceGetMemoryInfo_v2$/);
  });

  it('keeps the GPUs that answer', () => {
    const { gpus, unknown } = factsOf(FILES, 'LOST_GPU=0');
    expect(gpus.map(({ index }) => index)).toEqual([1]);
    expect(unknown).toEqual({ gpus: 'GPU 0: nvmlDeviceGetHandleByIndex_v2: GPU is lost (error 15)' });
  });

  it('tells what a board has not from what it does not say', () => {
    const { gpus, unknown } = factsOf(FILES, 'NO_LINKS');
    expect(gpus[0]).toMatchObject({ numNvlinks: 0, nvlinkPeers: [], isMigOn: null, isEccOn: null });
    expect(unknown['gpus.0.isEccOn']).toBe('nvmlDeviceGetEccMode: Not Supported (error 3)');
  });

  it('may fill its text to the last byte with anything', () => {
    expect(factsOf(FILES, 'LONG_NAME').gpus[0]?.name).toBe('\u00e9'.repeat(96));
  });
});

describe('files', () => {
  const cgroupOf = (files: Files): MachineFacts['cgroup'] => readMachineFacts(writeMachine(newFolder(), files)).cgroup;

  it.each<[string, Files, MachineFacts['cgroup']]>([
    [
      'version 1, hybrid',
      {
        'proc/self/cgroup': '5:memory:/job\n4:cpu,cpuacct:/job\n0::/elsewhere\n',
        'cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
        'cgroup/memory/job/memory.limit_in_bytes': '1073741824\n',
        'cgroup/cpu/job/cpu.cfs_quota_us': '-1\n',
        'cgroup/cpu/job/cpu.cfs_period_us': '100000\n',
      },
      { memoryLimitBytes: GIB, cpuLimit: 'unlimited' },
    ],
    [
      'version 1 without a limit',
      { 'proc/self/cgroup': '5:memory:/\n4:cpu:/\n', 'cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n' },
      { memoryLimitBytes: 'unlimited', cpuLimit: null },
    ],
    [
      'a container, which sees its group as the root',
      { 'proc/self/cgroup': '0::/docker/abc\n', 'cgroup/memory.max': '2147483648\n', 'cgroup/cpu.max': 'max 100000\n' },
      { memoryLimitBytes: 2 * GIB, cpuLimit: 'unlimited' },
    ],
    [
      'the root of version 2',
      { 'proc/self/cgroup': '0::/\n', 'cgroup/cgroup.controllers': '' },
      { memoryLimitBytes: 'unlimited', cpuLimit: 'unlimited' },
    ],
    ['no cgroups', { 'proc/self/cgroup': '' }, { memoryLimitBytes: null, cpuLimit: null }],
    ['a period of nothing', { 'proc/self/cgroup': '0::/', 'cgroup/cpu.max': '5 0' }, { memoryLimitBytes: null, cpuLimit: null }],
  ])('of a control group: %s', (_, files, expected) => {
    expect(cgroupOf(files)).toEqual(expected);
  });

  it('that are not there leave reasons, one for each fact', () => {
    const { unknown, ...facts } = readMachineFacts(writeMachine(newFolder(), {}));
    expect(facts.memory).toEqual({ ...facts.memory, totalBytes: null, transparentHugePages: null });
    expect(facts.numaNodes).toEqual([]);
    expect(unknown['memory.totalBytes']).toMatch(/cannot read .*\/proc\/meminfo: No such file or directory/);
    expect(unknown['numaNodes']).toMatch(/cannot read .*\/node: No such file or directory/);
    expect(unknown['cgroup.cpuLimit']).toMatch(/cannot read .*\/proc\/self\/cgroup/);
  });

  it('of a GPU that names no node, or that sysfs has not', () => {
    const gpu = 'sys/devices/pci0000:4a/0000:4a:02.0/0000:4b:00.0/0000:4e:00.0/numa_node';
    const { [gpu]: _, ...rest } = FILES;
    const none = factsOf({ ...FILES, [gpu]: '-1\n' });
    expect(none.gpus[0]?.numaNode).toBeNull();
    expect(none.unknown['gpus.0.numaNode']).toMatch(/numa_node is -1: the firmware names no node/);
    const missing = factsOf(rest);
    expect(missing.gpus[0]).toMatchObject({ numaNode: null, pcieBridges: null });
    expect(missing.unknown['gpus.0.pcieBridges']).toMatch(/cannot follow .*0000:4e:00\.0: No such file or directory/);
  });

  it('with anything in them: a fact or a reason, never a crash', () => {
    const anything = fc.oneof(
      fc.string(),
      fc.constantFrom('', '\n', ':', '::', '-', '1e999 kB', 'MemTotal:', 'MemTotal: x kB', '][', '0::', '0::relative'),
    );
    fc.assert(
      fc.property(fc.record(Object.fromEntries(Object.keys(FILES).map((path) => [path, anything]))), (files) => {
        const own = newFolder();
        const { memory, unknown } = readMachineFacts(writeMachine(own, files));
        rmSync(own, { recursive: true });
        for (const [key, value] of Object.entries(memory)) expect(value === null).toBe(unknown[`memory.${key}`] !== undefined);
      }),
      { numRuns: 50 },
    );
  });
});

describe('with sanitizers', () => {
  it('the same facts, and no error of memory or arithmetic', () => {
    const program = join(folder, 'factsMain');
    const sources = readdirSync(NATIVE).filter((name) => name.endsWith('.cc') && !/addon|binding/.test(name));
    // As one file: each would parse the same headers.
    const whole = join(folder, 'whole.cc');
    writeFileSync(whole, [join(HERE, 'factsMain.cc'), ...sources].map((name) => `#include "${name}"\n`).join(''));
    compile(['-g1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', `-I${NATIVE}`, whole, '-o', program, '-ldl']);
    for (const defines of [[], ['INIT_CODE=9'], ['NO_INIT'], ['WILD'], ['NO_MEMORY_V2'], ['LOST_GPU=0'], ['NO_LINKS'], ['LONG_NAME']]) {
      const { nvmlLibrary, sysRoot, procRoot, cgroupRoot } = machine(FILES, ...defines) as Required<FactSources>;
      const { status, stdout, stderr } = spawnSync(program, [nvmlLibrary, sysRoot, procRoot, cgroupRoot], { encoding: 'utf8' });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(JSON.parse(stdout)).toEqual(readMachineFacts({ nvmlLibrary, sysRoot, procRoot, cgroupRoot }));
    }
  });
});
