import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
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
