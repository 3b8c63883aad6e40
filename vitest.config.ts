import { readdirSync, readFileSync } from 'node:fs';
import { defineConfig } from 'vitest/config';

const ALL = ['test/**/*.test.ts'];
/** Files that put a mock in place of a module, which others may have loaded before. */
const MOCKING = readdirSync('test', { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.test.ts') && readFileSync(`test/${path}`, 'utf8').includes('vi.mock('))
  .map((path) => `test/${path}`);

export default defineConfig({
  test: {
    projects: [
      { extends: true, test: { name: 'mocking', include: MOCKING } },
      // Modules are loaded once for all files, a minute of work less.
      { extends: true, test: { name: 'all', include: ALL, exclude: MOCKING, isolate: false } },
    ],
    // Tests that start ranks share two cores with everything else: one file at a time, and limits that only a hang reaches.
    fileParallelism: false,
    // As with pytest: further cases of what others test. `npm test` leaves them to `npm run verify:full`.
    tags: [{ name: 'full', description: 'of full rounds' }],
    testTimeout: 1_200_000,
    hookTimeout: 1_200_000,
    // Where CI is set, colours would be on.
    env: { OMP_NUM_THREADS: '1', NO_COLOR: '1' },
  },
});
