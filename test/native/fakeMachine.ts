/** A machine of files: folders like /sys, /proc and /sys/fs/cgroup, and a libnvidia-ml.so compiled here. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FactSources } from '../../src/native.js';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const COMPILER = process.env['CXX'] ?? 'c++';

/** Text by path below a machine's folder. */
export type Files = Readonly<Record<string, string>>;

/** Two nodes of two CPUs, a GPU on each, both below one port; 64 GiB, of which the control group may use 48. */
export const FILES: Files = {
  'sys/devices/system/node/node0/cpulist': '0-1\n',
  'sys/devices/system/node/node0/meminfo': 'Node 0 MemTotal:       33554432 kB\nNode 0 MemFree:        16777216 kB\n',
  'sys/devices/system/node/node1/cpulist': '1000-1001\n',
  'sys/devices/system/node/node1/meminfo': 'Node 1 MemTotal:       33554432 kB\nNode 1 MemFree:        1048576 kB\n',
  'sys/devices/system/node/online': '0-1\n',
  'sys/devices/system/cpu/online': '0-1,1000-1001\n',
  'sys/kernel/mm/transparent_hugepage/enabled': 'always [madvise] never\n',
  'sys/devices/pci0000:4a/0000:4a:02.0/0000:4b:00.0/0000:4e:00.0/numa_node': '0\n',
  'sys/devices/pci0000:4a/0000:4a:02.0/0000:4c:00.0/0000:b7:00.0/numa_node': '1\n',
  'proc/meminfo':
    'MemTotal:       67108864 kB\nMemFree:        1 kB\nMemAvailable:   50331648 kB\nHugePages_Total:      16\nHugePages_Free:        4\nHugepagesize:       2048 kB\n',
  'proc/self/cgroup': '0::/user.slice/run.scope\n',
  'cgroup/cgroup.controllers': 'cpu memory\n',
  'cgroup/user.slice/memory.max': '51539607552\n',
  'cgroup/user.slice/cpu.max': 'max 100000\n',
  'cgroup/user.slice/run.scope/memory.max': 'max\n',
  'cgroup/user.slice/run.scope/cpu.max': '150000 100000\n',
};

/** Links to the GPUs of FILES, as /sys/bus/pci/devices has them. */
const BUS_IDS = { '0000:4e:00.0': '0000:4b:00.0', '0000:b7:00.0': '0000:4c:00.0' };

/** Writes `files` below `folder`, which has none of them yet. */
export function writeMachine(folder: string, files: Files, nvmlLibrary = '/nonexistent/libnvidia-ml.so.1'): Required<FactSources> {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  const devices = join(folder, 'sys/bus/pci/devices');
  mkdirSync(devices, { recursive: true });
  for (const [id, bridge] of Object.entries(BUS_IDS)) {
    symlinkSync(join('../../../devices/pci0000:4a/0000:4a:02.0', bridge, id), join(devices, id));
  }
  return { nvmlLibrary, sysRoot: join(folder, 'sys'), procRoot: join(folder, 'proc'), cgroupRoot: join(folder, 'cgroup') };
}

/** A fake NVML with what `defines` of fakeNvml.cc say; its path. */
export function compileNvml(folder: string, ...defines: readonly string[]): string {
  const path = join(folder, `nvml${defines.map((name) => `-${name}`).join('')}.so`);
  compile(['-shared', '-fPIC', ...defines.map((name) => `-D${name}`), join(HERE, 'fakeNvml.cc'), '-o', path]);
  return path;
}

/** Throws with what the compiler says. */
export function compile(args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(COMPILER, ['-std=c++17', '-Wall', '-Wextra', '-Werror', ...args], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${COMPILER}: ${error?.message ?? stderr}`);
}
