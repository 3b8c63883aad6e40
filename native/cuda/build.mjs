/**
 * Holds what the copy engine declares of the CUDA driver against NVIDIA's own header, by nvcc. The engine itself needs no toolkit:
 * python/fpdt/copies builds it with a C++ compiler.
 *
 *   node native/cuda/build.mjs --check     leaves nothing behind
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('.', import.meta.url));
const CHIPS = ['80', '90a', '100'];

if (process.argv.slice(2).join(' ') !== '--check')
  fail('expected --check', 'usage: npm run build:cuda -- --check; the engine is built by npm run setup');
const made = mkdtempSync(join(tmpdir(), 'fpdt-cuda-'));
try {
  compile(['-c', '-x', 'cu', join(folder, 'cuda_driver_check.cc'), '-o', join(made, 'check.o')]);
  console.log("fpdt: the copy engine's CUDA back end agrees with the toolkit's header");
} finally {
  rmSync(made, { recursive: true, force: true });
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
