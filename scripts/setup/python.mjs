/** The Python half of setup: the environment in .venv, or a check of the one that FPDT_PYTHON names. */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, isAbsolute, join, resolve } from 'node:path';
import { ROOT, STATE, SetupError, hashOf, isStamped, lastLines, outputOf, runLogged, say, stamp, timed } from './shared.mjs';

const TORCH = '2.13.0';
const REQUIREMENTS = 'python/requirements.txt';
const RUN_MODULES = ['torch', 'deepspeed', 'transformers', 'zmq', 'numpy', 'safetensors', 'pydantic'];
const TEST_MODULES = ['pytest', 'mypy', 'ruff', 'hypothesis'];
const CANDIDATES = ['python3', 'python3.11', 'python3.12', 'python3.13'];
const NOT_SUPPORTED = 'fpdt needs Python 3.11, 3.12 or 3.13';
const INSTALL_PYTHON = 'On Debian: apt-get install python3 python3-venv. Or point FPDT_PYTHON to an environment of your own.';

/** Makes sure that a Python which can run the worker is there, and returns its path. */
export function preparePython({ withTests, env = process.env }) {
  if (env.FPDT_PYTHON !== undefined && env.FPDT_PYTHON !== '') return checkOwnPython(env.FPDT_PYTHON, withTests);
  const python = join(ROOT, '.venv', 'bin', 'python');
  const gpu = hasGpu();
  const hash = hashOf([REQUIREMENTS], TORCH, String(gpu));
  if (isStamped('.venv', hash) && outputOf(python, ['-c', 'print(1)']) === '1') return python;
  makeEnvironment(python);
  installPythonPackages(python, gpu);
  stamp('.venv', hash);
  return python;
}

function makeEnvironment(python) {
  if (outputOf(python, ['-m', 'pip', '--version']) !== undefined) return;
  const base = findPython();
  if (outputOf(base, ['-c', 'import venv, ensurepip']) === undefined) {
    throw new SetupError(`${base} cannot make virtual environments: its venv or ensurepip module is missing`, INSTALL_PYTHON);
  }
  timed(`making the Python environment .venv with ${base}`, () =>
    runLogged(base, ['-m', 'venv', '--clear', '.venv'], { log: 'venv.log', what: `${base} -m venv .venv` }),
  );
}

/** The first supported Python 3 of the path. */
export function findPython(candidates = CANDIDATES) {
  const seen = [];
  for (const name of candidates) {
    const version = outputOf(name, ['-c', 'import sys; print("%d.%d" % sys.version_info[:2])']);
    if (version === undefined) continue;
    const [major = 0, minor = 0] = version.split('.').map(Number);
    if (major === 3 && minor >= 11 && minor <= 13) return name;
    seen.push(`${name} is ${version}`);
  }
  if (seen.length === 0) throw new SetupError(`no python3 was found. ${NOT_SUPPORTED}`, INSTALL_PYTHON);
  throw new SetupError(`${NOT_SUPPORTED}; found: ${seen.join(', ')}`, INSTALL_PYTHON);
}

function installPythonPackages(python, gpu) {
  const pip = ['-m', 'pip', 'install', '--no-input', '--disable-pip-version-check', '--progress-bar', 'off', '-c', REQUIREMENTS];
  installTorch(python, pip, gpu);
  // DeepSpeed is a source package that looks at torch while it builds: no isolation, and no op compiled ahead of use.
  timed('installing deepspeed, transformers, pyzmq and the test tools', () => {
    runLogged(python, [...pip, 'setuptools'], { log: 'pip-build.log', what: 'pip install setuptools' });
    runLogged(python, [...pip, '--no-build-isolation', '-r', REQUIREMENTS], {
      log: 'pip.log',
      env: { DS_BUILD_OPS: '0' },
      what: 'pip install',
    });
  });
}

/** The CPU build where there is no GPU and the package index offers it; otherwise the default build. */
function installTorch(python, pip, gpu) {
  const has = outputOf(python, ['-c', 'import importlib.metadata as m; print(m.version("torch"))']);
  if (has?.split('+')[0] === TORCH) return;
  const install = (name, log) => runLogged(python, [...pip, name], { log, what: `pip install ${name}` });
  if (gpu) return timed(`installing torch ${TORCH} for the GPU of this machine`, () => install(`torch==${TORCH}`, 'pip-torch.log'));
  if (process.platform !== 'linux') return timed(`installing torch ${TORCH}`, () => install(`torch==${TORCH}`, 'pip-torch.log'));
  const cpuBuild = timed(`installing torch ${TORCH}, CPU build (no GPU here)`, () =>
    attempt(() => install(`torch==${TORCH}+cpu`, 'pip-torch.log')),
  );
  if (cpuBuild === undefined) return;
  if (!/No matching distribution/i.test(cpuBuild.message)) throw cpuBuild;
  say('the package index has no CPU-only build under that name. The default build brings several GB of CUDA libraries;');
  say("stop now and set PIP_EXTRA_INDEX_URL to PyTorch's CPU index to avoid them.");
  timed(`installing torch ${TORCH}, default build`, () => install(`torch==${TORCH}`, 'pip-torch.log'));
}

function attempt(work) {
  try {
    work();
    return undefined;
  } catch (error) {
    if (error instanceof SetupError) return error;
    throw error;
  }
}

function hasGpu() {
  return (outputOf('nvidia-smi', ['-L']) ?? '').includes('GPU ');
}

/** Every module is imported once per interpreter and set of versions; later starts only compare versions. */
function checkOwnPython(given, withTests) {
  const python = isAbsolute(given) || !given.includes('/') ? given : resolve(given);
  const modules = withTests ? [...RUN_MODULES, ...TEST_MODULES] : RUN_MODULES;
  const found = outputOf(python, ['-c', VERSIONS, ...modules]);
  if (found === undefined) {
    throw new SetupError(
      `FPDT_PYTHON=${given} does not run as a Python interpreter`,
      'Set it to the python of an environment, or unset it to use .venv.',
    );
  }
  const marker = join(STATE, 'own-python.stamp');
  const state = hashOf([], python, found);
  if (existsSync(marker) && readFileSync(marker, 'utf8') === state) return python;
  say(`checking the environment of FPDT_PYTHON=${given} ...`);
  const result = spawnSync(python, ['-c', IMPORTS, ...modules], { encoding: 'utf8', env: importEnvironment() });
  if (result.status !== 0) {
    throw new SetupError(
      `FPDT_PYTHON=${given} cannot import what the worker needs:\n${lastLines(result.stdout, 12)}\n${lastLines(result.stderr, 6)}`,
      `Install it there (pip install torch==${TORCH}, then -r ${REQUIREMENTS}), or unset FPDT_PYTHON to use .venv.`,
    );
  }
  warnAboutVersions(JSON.parse(found));
  mkdirSync(STATE, { recursive: true });
  writeFileSync(marker, state);
  return python;
}

function warnAboutVersions(found) {
  const text = readFileSync(join(ROOT, REQUIREMENTS), 'utf8');
  const pinned = { torch: TORCH };
  for (const [, name, version] of text.matchAll(/^([\w-]+)==(\S+)/gm)) pinned[name.toLowerCase()] = version;
  for (const [name, version] of Object.entries(found)) {
    const wanted = pinned[name];
    if (wanted !== undefined && version.split('+')[0] !== wanted) say(`  ${name} is ${version}; fpdt is tested with ${wanted}`);
  }
}

function importEnvironment() {
  return { ...process.env, PYTHONPATH: [join(ROOT, 'python'), process.env.PYTHONPATH].filter(Boolean).join(delimiter) };
}

const VERSIONS = `
import importlib.metadata as m, json, sys
names = {"zmq": "pyzmq"}
def version(module):
    try: return m.version(names.get(module, module))
    except m.PackageNotFoundError: return "missing"
print(json.dumps({names.get(x, x): version(x) for x in sys.argv[1:]}))
`;

const IMPORTS = `
import importlib, importlib.util, sys
bad = 0
if sys.version_info < (3, 11): print("Python", sys.version.split()[0], "is older than 3.11"); bad = 1
for module in sys.argv[1:]:
    try: importlib.import_module(module)
    except Exception as error: print(module + ":", type(error).__name__ + ":", error); bad = 1
sys.exit(bad)
`;
