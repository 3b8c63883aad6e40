#!/usr/bin/env node
/** The command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a requirement not met, 130 interrupted. */
import { loadProgram } from './bundle.js';

// A reader that has seen enough, such as `head`, is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

const { runCli } = await loadProgram();
process.exitCode = await runCli(process.argv.slice(2));
