import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Tests that start ranks share two cores with everything else: one file at a time, generous limits.
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Where CI is set, colours would be on.
    env: { OMP_NUM_THREADS: '1', NO_COLOR: '1' },
  },
});
