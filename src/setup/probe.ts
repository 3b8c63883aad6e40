/** What a Python interpreter says of itself: versions, what it can import, and the GPU that its torch sees. */
import { spawnSync } from 'node:child_process';
import { FpdtError } from '../spec/errors.js';
import { RUN_PACKAGES } from './pins.js';

export interface Probe {
  readonly python: string;
  readonly executable: string;
  /** By distribution; null where it is not installed. */
  readonly packages: Readonly<Record<string, string | null>>;
  /** Of what a run imports, what cannot be, and why. */
  readonly importErrors: Readonly<Record<string, string>>;
  /** The name of the first one. */
  readonly gpu: string | null;
  /** The CUDA that torch was built for; null for a build without. */
  readonly torchCuda: string | null;
}

/** Imports all that a run imports, which takes seconds. Throws `python-not-found`. */
export function probe(python: string, hint: string, distributions: readonly string[] = []): Probe {
  const names = JSON.stringify({ modules: RUN_PACKAGES, distributions: [...Object.keys(RUN_PACKAGES), ...distributions] });
  const { status, stdout, stderr, error } = spawnSync(python, ['-c', PROBE, names], { encoding: 'utf8' });
  const last = stdout?.trim().split('\n').at(-1) ?? '';
  if (status === 0 && last.startsWith('{')) return JSON.parse(last) as Probe;
  const reason = error?.message ?? (stderr.trim().split('\n').at(-1) || `exit code ${status}`);
  throw new FpdtError(`${python} does not run: ${reason}`, { code: 'python-not-found', hint });
}

/** Libraries print while they are imported: what is asked for is the last line. */
const PROBE = `
import importlib, importlib.metadata as m, json, platform, sys
asked = json.loads(sys.argv[1])
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
packages = {name: version(name) for name in asked["distributions"]}
errors = {}
for name, module in asked["modules"].items():
    if packages[name] is None: continue
    try: importlib.import_module(module)
    except BaseException as problem: errors[name] = (type(problem).__name__ + ": " + str(problem)).split("\\n")[0]
gpu = cuda = None
torch = sys.modules.get("torch")
if torch is not None and "torch" not in errors:
    cuda = torch.version.cuda or getattr(torch.version, "hip", None)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
print()
print(json.dumps({"python": platform.python_version(), "executable": sys.executable, "packages": packages,
                  "importErrors": errors, "gpu": gpu, "torchCuda": cuda}), flush=True)
`;
