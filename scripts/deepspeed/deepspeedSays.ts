/** What the installed DeepSpeed says, by the Python programs of this folder: JSON in on stdin, JSON out. */
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { PYTHON_FOLDER, resolvePython } from '../../src/bridge/python.js';

export async function deepspeedSays(program: 'table' | 'configs', input?: unknown): Promise<unknown> {
  const path = fileURLToPath(new URL(`${program}.py`, import.meta.url));
  const env = { PYTHONPATH: PYTHON_FOLDER };
  const { stdout } = await execa(resolvePython(), [path], { input: JSON.stringify(input ?? null), env, stderr: 'ignore' });
  return JSON.parse(stdout);
}
