#!/usr/bin/env node
/**
 * Installs what is missing and says what it does: npm packages, the compiled library, the native addon, the Python
 * environment. Plain Node, so that it runs on a fresh clone; a second start only compares versions and stamps.
 *
 *   node scripts/setup.mjs --for demo|test|plan     prints nothing to stdout
 *   FPDT_PYTHON=/path/to/python                     use that environment instead of .venv
 */

import { buildCopies } from './setup/copies.mjs';
import { installLibaio } from './setup/libaio.mjs';
import { buildLibrary, buildNative, checkNode, installPackages } from './setup/node.mjs';
import { preparePython } from './setup/python.mjs';
import { ALREADY_SAID, SetupError, withLock } from './setup/shared.mjs';

const PURPOSES = ['demo', 'test', 'plan'];

function main(args) {
  const purpose = parsePurpose(args);
  checkNode();
  withLock(() => {
    installPackages();
    buildLibrary();
    buildNative();
    if (purpose === 'test') installLibaio();
    if (purpose !== 'plan') buildCopies(preparePython({ withTests: purpose === 'test' }));
  });
}

function parsePurpose(args) {
  const purpose = args[0] === '--for' ? args[1] : 'demo';
  if (args.length > 2 || (args.length > 0 && args[0] !== '--for') || !PURPOSES.includes(purpose)) {
    throw new SetupError(`did not understand "${args.join(' ')}"`, `Usage: node scripts/setup.mjs --for ${PURPOSES.join('|')}`);
  }
  return purpose;
}

try {
  if (process.platform === 'win32') throw new SetupError('Windows is not supported', 'Use Linux, or WSL.');
  main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  if (error.message !== ALREADY_SAID) process.stderr.write(`error: ${error.message}\nhint: ${error.hint}\n`);
  process.exitCode = 1;
}
