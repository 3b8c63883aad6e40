/**
 * Builds the native addon into native/build/fpdt.node, without the network: Node-API is stable across Node versions, so the headers
 * of the node-api-headers package serve every one of them. Without a compiler there is none, and all else works: said once, exit 0.
 *
 *   node native/build.mjs [--strict]     --strict: a failed build is an error
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const nativeFolder = fileURLToPath(new URL('.', import.meta.url));
const buildFolder = join(nativeFolder, 'build');
const addonPath = join(buildFolder, 'fpdt.node');

const problem = build();
if (problem === undefined) {
  console.log(`fpdt: built ${addonPath}`);
} else {
  console.error(
    `fpdt: the native addon was not built (${problem}); doctor and calibrate know no facts of this machine and long plans take longer, all else works`,
  );
  process.exitCode = process.argv.includes('--strict') ? 1 : 0;
}

/** Returns why there is no addon, or undefined when there is one. */
function build() {
  rmSync(addonPath, { force: true });
  let nodeGyp;
  let headers;
  try {
    nodeGyp = require.resolve('node-gyp/bin/node-gyp.js');
    headers = require('node-api-headers').include_dir;
  } catch {
    return 'node-gyp and node-api-headers are not installed';
  }
  const nodeDir = mkdtempSync(join(tmpdir(), 'fpdt-node-'));
  try {
    fillNodeDir(nodeDir, headers);
    return compile(nodeGyp, nodeDir);
  } finally {
    rmSync(nodeDir, { recursive: true, force: true });
  }
}

function compile(nodeGyp, nodeDir) {
  const { status, stderr, error } = spawnSync(process.execPath, [nodeGyp, 'rebuild', '--release', `--nodedir=${nodeDir}`], {
    cwd: nativeFolder,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    env: { ...process.env, npm_config_nodedir: nodeDir },
  });
  if (error !== undefined) return error.message;
  if (status !== 0) return firstError(stderr);
  renameSync(join(buildFolder, 'Release', 'fpdt.node'), addonPath);
  return undefined;
}

/** What node-gyp wants of an installed Node: include/node with headers and two gyp files. */
function fillNodeDir(nodeDir, headers) {
  const include = join(nodeDir, 'include', 'node');
  mkdirSync(include, { recursive: true });
  cpSync(headers, include, { recursive: true });
  writeFileSync(
    join(include, 'config.gypi'),
    JSON.stringify({ target_defaults: {}, variables: { host_arch: process.arch, target_arch: process.arch } }),
  );
  writeFileSync(join(include, 'common.gypi'), JSON.stringify(commonSettings()));
}

function commonSettings() {
  const release = {
    cflags: ['-O2', '-fPIC'],
    xcode_settings: { GCC_OPTIMIZATION_LEVEL: '2' },
    msvs_settings: { VCCLCompilerTool: { Optimization: 2 } },
  };
  const mac = { xcode_settings: { OTHER_LDFLAGS: ['-undefined dynamic_lookup'] } };
  return {
    target_defaults: {
      default_configuration: 'Release',
      configurations: { Release: release, Debug: { cflags: ['-O0', '-g', '-fPIC'] } },
      conditions: [["OS=='mac'", mac]],
    },
  };
}

/** The first line that says what went wrong; node-gyp's own frame lines say little. */
function firstError(output) {
  const lines = output.split('\n').map((line) => line.replace(/^gyp ERR! (stack )?/, '').trim());
  return lines.find((line) => /error|not found|could not/i.test(line)) ?? 'node-gyp failed';
}
