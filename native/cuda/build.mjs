/**
 * Compiles the copy engine with its CUDA back end, by nvcc, for sm_80, sm_90a and sm_100, into native/build/copies-cuda.so.
 *
 *   node native/cuda/build.mjs [--check]     --check: compiles the CUDA back end alone, and leaves nothing behind
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('.', import.meta.url));
const library = fileURLToPath(new URL('../build/copies-cuda.so', import.meta.url));
const CHIPS = ['80', '90a', '100'];
const HOST_SOURCES = ['copies_api.cc', 'copy_engine.cc', 'copy_program.cc', 'thread_device.cc'];

const given = process.argv.slice(2);
if (given.some((word) => word !== '--check')) fail(`did not understand ${given.join(' ')}`, 'usage: npm run build:cuda [-- --check]');
if (given.includes('--check')) check();
else build();

function check() {
  const made = mkdtempSync(join(tmpdir(), 'fpdt-cuda-'));
  try {
    compile(['-c', '-x', 'cu', join(folder, 'cuda_device.cc'), '-o', join(made, 'cuda_device.o')]);
    console.log(`fpdt: the CUDA back end of the copy engine compiles for ${CHIPS.map((chip) => `sm_${chip}`).join(', ')}`);
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
}

/** The driver's own library is whatever the machine has: its names stay open until it is loaded. */
function build() {
  mkdirSync(join(folder, '..', 'build'), { recursive: true });
  const sources = ['cuda_device.cc', ...HOST_SOURCES].map((name) => join(folder, name));
  compile(['-shared', '-DFPDT_COPIES_CUDA', '-x', 'cu', ...sources, '-o', library]);
  console.log(`fpdt: built ${library}`);
}

function compile(args) {
  const chips = CHIPS.flatMap((chip) => ['-gencode', `arch=compute_${chip},code=sm_${chip}`]);
  const common = ['-std=c++17', '-O2', '-Werror', 'all-warnings', '-Xcompiler', '-fPIC,-Wall,-Wextra,-Werror', ...chips];
  const compiler = process.env.NVCC ?? 'nvcc';
  const { status, stderr, error } = spawnSync(compiler, [...common, ...args], { encoding: 'utf8' });
  if (error !== undefined) fail(`there is no ${compiler}: ${error.message}`, 'install the CUDA toolkit, 13.0 or newer, or set NVCC');
  if (status !== 0) fail(`${compiler} failed:\n${stderr}`, 'the CUDA toolkit must be 13.0 or newer');
}

function fail(message, hint) {
  console.error(`error: ${message}\nhint: ${hint}`);
  process.exit(1);
}
