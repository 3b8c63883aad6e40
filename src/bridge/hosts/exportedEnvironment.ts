/** Environment variables that go to other hosts: as the deepspeed launcher sends them (0.19.8, launcher/runner.py), and fpdt's own. */

import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { FpdtError } from '../../spec/errors.js';
import type { Environment } from '../rankEnvironment.js';

/** DeepSpeed's, with those of its CUDA accelerator; then ours. What begins so is sent. */
const PREFIXES = ['MLFLOW', 'PYTHON', 'MV2', 'UCX', 'NCCL', 'GLOO', 'TORCH', 'OMP_NUM_THREADS', 'FPDT_'];
/** Of this process. */
const OWN = 'FPDT_CONTROLLER_PID';

/** Of `environment`, and of `.deepspeed_env` in the home folder and here, the latter counting. Throws FpdtError `deepspeed-env`. */
export function exportedEnvironment(environment: Environment, folders: readonly string[] = [homedir(), '.']): Record<string, string> {
  const sent = Object.entries(environment).filter(([name]) => name !== OWN && PREFIXES.some((prefix) => name.startsWith(prefix)));
  const exported: Record<string, string> = {};
  for (const [name, value] of sent) if (value !== undefined) exported[name] = value;
  const file = environment['DS_ENV_FILE'] ?? '.deepspeed_env';
  for (const folder of folders) Object.assign(exported, readFile(join(folder, file)));
  return exported;
}

function readFile(path: string): Record<string, string> {
  if (!existsSync(path)) return {};
  const lines = readFileSync(path, 'utf8').split('\n');
  const variables = [...lines.entries()].flatMap(([index, line]) => (line.trim() === '' ? [] : [variableOf(line, `${path}:${index + 1}`)]));
  return Object.fromEntries(variables);
}

function variableOf(line: string, place: string): readonly [string, string] {
  const at = line.indexOf('=');
  const name = line.slice(0, at).trim();
  if (at > 0 && /^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return [name, line.slice(at + 1).trimEnd()];
  throw new FpdtError(`${place}: '${line}' sets no variable`, { code: 'deepspeed-env', hint: 'write lines such as NCCL_DEBUG=INFO' });
}
