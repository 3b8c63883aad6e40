/** The Python of a run, judged: versions against the pins, what cannot be imported, and whether torch sees the GPUs that are there. */
import { dirname } from 'node:path';
import { type Check, fine, warning } from '../machine/check.js';
import { FpdtError } from '../spec/errors.js';
import { isSupported } from './basePython.js';
import { PYTHON_MINORS, readPins } from './pins.js';
import { isOurs } from './places.js';
import { type Probe, probe } from './probe.js';

/** `find` throws where there is none; `numGpus` are those of NVML, null where nobody knows. */
export function pythonChecks(find: () => string, hint: string, numGpus: number | null): readonly Check[] {
  try {
    const python = find();
    const found = probe(python, hint);
    const remedy = remedyOf(python);
    return [pythonCheck(found), ...packageChecks(found, remedy), gpuCheck(found, numGpus, remedy)];
  } catch (error) {
    if (!(error instanceof FpdtError)) throw error;
    return [{ name: 'python', status: 'missing', found: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) }];
  }
}

/** The command that installs a package where this Python looks for it. */
type Remedy = (requirement: string) => string;

/** An environment of setup is mended by setup; one of the user's own by its pip. */
function remedyOf(python: string): Remedy {
  if (python.includes('/') && isOurs(dirname(dirname(python)))) return () => 'npx fpdt setup';
  return (requirement) => `'${python}' -m pip install '${requirement}'`;
}

function pythonCheck({ python, executable }: Probe): Check {
  const found = `${python} (${executable})`;
  if (isSupported(python)) return fine('python', found);
  const { oldest, newest } = PYTHON_MINORS;
  return {
    name: 'python',
    status: 'missing',
    found,
    hint: `3.${oldest} to 3.${newest} is needed: npx fpdt setup --python python3.${oldest}`,
  };
}

function packageChecks({ packages, importErrors }: Probe, remedy: Remedy): readonly Check[] {
  const pins = readPins();
  return Object.entries(packages).map(([name, version]): Check => {
    const pin = pins.get(name) ?? '';
    const hint = remedy(`${name}==${pin}`);
    if (version === null) return { name, status: 'missing', found: 'not installed', hint };
    const problem = importErrors[name];
    if (problem !== undefined) return { name, status: 'missing', found: `${version} cannot be imported: ${problem}`, hint };
    if (version.split('+')[0] === pin) return fine(name, version);
    return warning(name, `${version}, not ${pin} as fpdt is tested with`, hint);
  });
}

/** What torch sees, against what NVML counts. */
function gpuCheck({ packages, gpu, torchCuda }: Probe, numGpus: number | null, remedy: Remedy): Check {
  if (gpu !== null) return fine('gpu', `${gpu}, torch for ${torchCuda}`);
  if (numGpus === null || numGpus === 0) return { name: 'gpu', status: 'warning', found: 'none: ranks run on the CPU' };
  if (torchCuda === null) {
    const hint = remedy('').startsWith('npx') ? 'npx fpdt setup --torch cuda' : remedy(`torch==${packages['torch']?.split('+')[0]}`);
    return warning('gpu', `${numGpus} here, but torch ${packages['torch']} is built without CUDA: ranks would run on the CPU`, hint);
  }
  return warning(
    'gpu',
    `${numGpus} here, but torch does not see them (it is built for CUDA ${torchCuda})`,
    'nvidia-smi says which CUDA the driver can do at most: update the driver; CUDA_VISIBLE_DEVICES must not be empty',
  );
}
