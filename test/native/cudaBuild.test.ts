/** What `npm run build:cuda` says where it cannot check; where there is a toolkit, test/run.sh has it check. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { expect, test } from 'vitest';

const SCRIPT = join(fileURLToPath(new URL('../..', import.meta.url)), 'native', 'cuda', 'build.mjs');

test.each([
  [[], {}, 'error: expected --check', 'the engine is built by npm run setup'],
  [['--check'], { NVCC: '/nowhere/nvcc' }, 'error: there is no /nowhere/nvcc', 'install the CUDA toolkit, 13.0 or newer, or set NVCC'],
  [['--check'], { NVCC: 'false' }, 'error: false failed', 'the CUDA toolkit must be 13.0 or newer'],
])('%j with %j', async (args, env, message, hint) => {
  const { exitCode, stderr } = await execa(process.execPath, [SCRIPT, ...args], { env, reject: false });
  expect(exitCode).toBe(1);
  expect(stderr).toContain(message);
  expect(stderr).toContain(hint);
});
