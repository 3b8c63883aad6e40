/** `fpdt doctor`: what a run needs, what of it is here, and what of this machine holds a run back. */
import { spawnSync } from 'node:child_process';
import { resolvePython, SETUP_HINT } from '../bridge/python.js';
import { type Check, fine, warning } from '../machine/check.js';
import { machineChecks } from '../machine/checks.js';
import type { MachineFacts } from '../machine/facts.js';
import { readMachineFacts } from '../machine/read.js';
import { BUILD_HINT, type FactSources, type LoadedAddon, loadNativeAddon } from '../native.js';
import { VERSION } from '../package.js';
import { FpdtError } from '../spec/errors.js';
import { type Output, printJson } from './output.js';

const OLDEST_NODE = [20, 19] as const;
/** Import name and distribution, with the version fpdt is tested with. */
const PACKAGES = [
  ['torch', '2.13.0'],
  ['deepspeed', '0.19.8'],
  ['transformers', '5.23.0'],
  ['pyzmq', '27.3.0'],
  ['safetensors', '0.8.0'],
  ['pydantic', '2.14.3'],
] as const;

/** What a test looks at instead of this machine. */
export interface DoctorSubject {
  readonly loaded?: LoadedAddon;
  readonly sources?: FactSources;
}

/** Returns the exit code: 1 when something that a run needs is missing. */
export async function doctorCommand(
  options: Readonly<Record<string, unknown>>,
  output: Output,
  { loaded = loadNativeAddon(), sources = {} }: DoctorSubject = {},
): Promise<number> {
  const facts = 'addon' in loaded ? readMachineFacts(sources, loaded) : null;
  const checks = [nodeCheck(), addonCheck(loaded), ...pythonChecks(options['python'] as string | undefined), ...factChecks(facts)];
  const ok = checks.every(({ status }) => status !== 'missing');
  if (options['json'] === true) printJson(output, { kind: 'doctor', version: VERSION, ok, checks, facts });
  else output.out(checksToText(checks));
  return ok ? 0 : 1;
}

function factChecks(facts: MachineFacts | null): readonly Check[] {
  return facts === null ? [] : machineChecks(facts);
}

export function checksToText(checks: readonly Check[]): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  return checks
    .flatMap(({ name, status, found, hint }) => [
      `${status.padEnd(7)}  ${name.padEnd(width)}  ${found}`,
      ...(hint === undefined ? [] : [`${''.padEnd(9 + width)}  hint: ${hint}`]),
    ])
    .join('\n');
}

function nodeCheck(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const isNewEnough = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  if (isNewEnough) return fine('node', process.versions.node);
  return { name: 'node', status: 'missing', found: process.versions.node, hint: `install Node ${OLDEST_NODE.join('.')} or newer` };
}

function addonCheck(loaded: LoadedAddon): Check {
  if ('addon' in loaded) return fine('native addon', 'loaded');
  return warning(
    'native addon',
    `${loaded.reason}: facts of this machine are not known, and long plans are verified more slowly`,
    BUILD_HINT,
  );
}

/** What the interpreter says of itself, as PROBE prints it. */
interface Probe {
  readonly python: string;
  readonly executable: string;
  readonly packages: Readonly<Record<string, string | null>>;
  readonly gpu: string | null;
  readonly importError: string | null;
}

function pythonChecks(explicit: string | undefined): Check[] {
  try {
    const probe = askPython(resolvePython(explicit));
    return [
      fine('python', `${probe.python} (${probe.executable})`),
      ...PACKAGES.map(([name, tested]) => packageCheck(name, tested, probe.packages[name] ?? null)),
      ...(probe.importError === null ? [] : [{ name: 'import', status: 'missing' as const, found: probe.importError, hint: SETUP_HINT }]),
      { name: 'gpu', status: probe.gpu === null ? 'warning' : 'ok', found: probe.gpu ?? 'none: ranks run on the CPU' },
    ];
  } catch (error) {
    if (!(error instanceof FpdtError)) throw error;
    return [{ name: 'python', status: 'missing', found: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) }];
  }
}

function packageCheck(name: string, tested: string, found: string | null): Check {
  if (found === null) return { name, status: 'missing', found: 'not installed', hint: SETUP_HINT };
  if (found.split('+')[0] === tested) return fine(name, found);
  return warning(name, found, `fpdt is tested with ${tested}`);
}

function askPython(python: string): Probe {
  const answer = spawnSync(python, ['-c', PROBE, ...PACKAGES.map(([name]) => name)], { encoding: 'utf8' });
  if (answer.status === 0) return JSON.parse(answer.stdout) as Probe;
  const reason = answer.error?.message ?? answer.stderr.trim().split('\n').at(-1) ?? `exit code ${answer.status}`;
  throw new FpdtError(`${python} does not run: ${reason}`, { code: 'python-not-found', hint: SETUP_HINT });
}

const PROBE = `
import importlib.metadata as m, json, platform, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
gpu = error = None
try:
    import torch
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
except Exception as problem:
    error = "torch: " + str(problem)
print(json.dumps({"python": platform.python_version(), "executable": sys.executable,
                  "packages": {name: version(name) for name in sys.argv[1:]}, "gpu": gpu, "importError": error}))
`;
