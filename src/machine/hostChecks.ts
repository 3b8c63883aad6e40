/** What of the operating system a run needs, and what holds it back: asked without the native addon. */
import { accessSync, constants, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { formatBytes } from '../spec/sizes.js';
import { type Check, fine, warning } from './check.js';

export interface Host {
  readonly platform: NodeJS.Platform;
  readonly sharedMemory: string;
  readonly temporary: string;
  readonly path: string;
  /** Folders in which the compiler looks for headers. */
  readonly includes: readonly string[];
}

export const THIS_HOST: Host = {
  platform: process.platform,
  sharedMemory: '/dev/shm',
  temporary: tmpdir(),
  path: process.env['PATH'] ?? '',
  includes: [...(process.env['CPATH'] ?? '').split(delimiter).filter((folder) => folder !== ''), '/usr/local/include', '/usr/include'],
};

/** `numGpus`: that ranks would share. */
export function hostChecks(host: Host, numGpus: number): readonly Check[] {
  return [platformCheck(host), temporaryCheck(host), sharedMemoryCheck(host, numGpus), compilerCheck(host), libaioCheck(host)];
}

function platformCheck({ platform }: Host): Check {
  if (platform === 'linux') return fine('system', platform);
  const found = `${platform}: runs are tested on Linux alone`;
  if (platform === 'win32') return { name: 'system', status: 'missing', found, hint: 'use Linux, or WSL' };
  return warning('system', found, 'plan here, and run on Linux');
}

/** Sockets of a run are files there; the path of one holds 107 bytes (sun_path of unix(7)), the run's part about 40 of them. */
const LONGEST_TEMPORARY = 64;

function temporaryCheck({ temporary }: Host): Check {
  const hint = 'point TMPDIR to a short path of a local disk: export TMPDIR=/tmp';
  const problem = refusal(temporary, constants.W_OK | constants.X_OK);
  if (problem !== undefined) return { name: 'temporary folder', status: 'missing', found: problem, hint };
  if (temporary.length > LONGEST_TEMPORARY)
    return { name: 'temporary folder', status: 'missing', found: `${temporary} is too long for the name of a socket in it`, hint };
  return fine('temporary folder', temporary);
}

/** Why it may not be used so, or undefined where it may. */
function refusal(path: string, mode: number): string | undefined {
  try {
    accessSync(path, mode);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** NCCL's ranks of one machine exchange through files there, some 10 to 40 MiB a pair; a container has 64 MiB unless told otherwise. */
const SHARED_BYTES_A_GPU = 256 * 1024 ** 2;

function sharedMemoryCheck({ sharedMemory }: Host, numGpus: number): Check {
  const name = 'shared memory';
  const freeBytes = freeOf(sharedMemory);
  if (typeof freeBytes === 'string') return numGpus > 1 ? warning(name, freeBytes, 'mount a tmpfs there') : fine(name, freeBytes);
  const found = `${formatBytes(freeBytes)} free in ${sharedMemory}`;
  if (numGpus < 2 || freeBytes >= numGpus * SHARED_BYTES_A_GPU) return fine(name, found);
  const hint = `NCCL may end with a bus error: docker run --shm-size=${numGpus}g, or mount -o remount,size=${numGpus}G ${sharedMemory}`;
  return warning(name, found, hint);
}

function freeOf(folder: string): number | string {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch (error) {
    return (error as Error).message;
  }
}

/** DeepSpeed compiles its optimizer for the host, and what reads and writes disks, when a run first wants them. */
function compilerCheck({ path }: Host): Check {
  const found = path
    .split(delimiter)
    .map((folder) => join(folder, 'c++'))
    .find((file) => refusal(file, constants.X_OK) === undefined);
  if (found !== undefined) return fine('compiler', found);
  return warning('compiler', 'none: a ds_config that offloads the optimizer does not start', 'on Debian and Ubuntu: apt-get install g++');
}

/** Of the kernel's asynchronous reads and writes, which DeepSpeed's async_io is compiled against. */
function libaioCheck({ includes }: Host): Check {
  const found = includes.map((folder) => join(folder, 'libaio.h')).find((file) => refusal(file, constants.R_OK) === undefined);
  if (found !== undefined) return fine('libaio', found);
  const hint = 'on Debian and Ubuntu: apt-get install libaio-dev';
  return warning('libaio', 'none: a ds_config that offloads to nvme does not start', hint);
}
