/**
 * Builds the native addon by one call of the C++ compiler, without the network and without headers of this Node: Node-API is stable
 * across versions, and the packages node-api-headers and node-addon-api have all that it takes. Without a compiler there is no
 * addon, and all else works: said once, exit 0. The file is there whole or not at all.
 *
 *   node native/build.mjs [--strict]     into native/build/fpdt.node; CXX names another compiler than c++
 *   --strict: warnings are errors, and a failed build is one
 */
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const nativeFolder = fileURLToPath(new URL('.', import.meta.url));
const isStrict = process.argv.includes('--strict');
const addonPath = join(nativeFolder, 'build', 'fpdt.node');

const problem = build();
if (problem === undefined) {
  console.log(`fpdt: built ${addonPath}`);
} else {
  console.error(
    `fpdt: the native addon was not built (${problem}); doctor and calibrate know no facts of this machine and long plans take longer, all else works`,
  );
  process.exitCode = isStrict ? 1 : 0;
}

/** Returns why there is no addon, or undefined when there is one. */
function build() {
  let includes;
  try {
    includes = [require('node-api-headers').include_dir, dirname(require.resolve('node-addon-api/package.json'))];
  } catch {
    return 'node-api-headers and node-addon-api are not installed';
  }
  const unfinished = `${addonPath}.${process.pid}`;
  try {
    mkdirSync(dirname(addonPath), { recursive: true });
    rmSync(addonPath, { force: true });
    const failure = compile(includes, unfinished);
    if (failure === undefined) renameSync(unfinished, addonPath);
    return failure;
  } catch (error) {
    return error.message;
  } finally {
    rmSync(unfinished, { force: true });
  }
}

function compile(includes, output) {
  const sources = readdirSync(nativeFolder).filter((name) => name.endsWith('.cc'));
  const args = [
    ...['-std=c++17', '-O3', '-fPIC', '-pthread', '-DNAPI_VERSION=8', '-DNODE_GYP_MODULE_NAME=fpdt', '-DBUILDING_NODE_EXTENSION'],
    ...(isStrict ? ['-Wall', '-Wextra', '-Werror'] : []),
    // Headers of others are not ours to mend.
    ...includes.flatMap((folder) => ['-isystem', folder]),
    ...sources,
    ...(process.platform === 'darwin' ? ['-bundle', '-undefined', 'dynamic_lookup', '-mmacosx-version-min=11.0'] : ['-shared', '-ldl']),
    ...['-o', output],
  ];
  const compiler = process.env.CXX ?? 'c++';
  const { status, stderr, error } = spawnSync(compiler, args, { cwd: nativeFolder, encoding: 'utf8', maxBuffer: 64 << 20 });
  if (error?.code === 'ENOENT') return `there is no C++ compiler ${compiler}`;
  if (error !== undefined) return error.message;
  return status === 0 ? undefined : firstError(stderr);
}

function firstError(output) {
  const lines = output.split('\n').map((line) => line.trim());
  return lines.find((line) => /error|not found|undefined/i.test(line)) ?? `the compiler said: ${lines[0] || 'nothing'}`;
}
