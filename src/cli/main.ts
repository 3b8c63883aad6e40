#!/usr/bin/env node
/** The command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. */
import { setFlagsFromString } from 'node:v8';
import { runCli } from './program.js';

// Most commands end within a second: compiling what ran a little while with all optimisations, as Node would, took a third of their CPU.
setFlagsFromString('--interrupt-budget=1000000');

// A reader that has seen enough, such as `head`, is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

process.exitCode = await runCli(process.argv.slice(2));
