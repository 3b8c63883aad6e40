/** Which Python packages the worker needs, in which versions: python/requirements*.txt are where that is written. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../package.js';
import { FpdtError } from '../spec/errors.js';

const PYTHON_FOLDER = join(PACKAGE_ROOT, 'python');
export const REQUIREMENTS = join(PYTHON_FOLDER, 'requirements.txt');
const TORCH_REQUIREMENTS = join(PYTHON_FOLDER, 'requirements-torch.txt');

/** Distributions that a run imports, and the names that they are imported by. */
export const RUN_PACKAGES = {
  torch: 'torch',
  deepspeed: 'deepspeed',
  transformers: 'transformers',
  pyzmq: 'zmq',
  numpy: 'numpy',
  safetensors: 'safetensors',
  pydantic: 'pydantic',
} as const;

/** Oldest and newest minor version of Python 3 that all of them have builds for. */
export const PYTHON_MINORS = { oldest: 11, newest: 13 } as const;

/** Versions by distribution, in the spelling of the files. */
export function readPins(): ReadonlyMap<string, string> {
  return new Map([...pinsOf(TORCH_REQUIREMENTS), ...pinsOf(REQUIREMENTS)]);
}

export function torchPin(): string {
  const pin = pinsOf(TORCH_REQUIREMENTS).get('torch');
  if (pin === undefined) throw new Error(`${TORCH_REQUIREMENTS} pins no torch`);
  return pin;
}

/** `name==version` of each line of a requirements file. Throws `file-not-found`. */
export function pinsOf(path: string): ReadonlyMap<string, string> {
  if (!existsSync(path))
    throw new FpdtError(`there is no requirements file ${path}`, { code: 'file-not-found', hint: 'give the path of one, or leave it out' });
  const lines = readFileSync(path, 'utf8').matchAll(/^([\w.-]+)==([^\s;#]+)/gm);
  return new Map([...lines].map(([, name = '', version = '']) => [name, version]));
}
