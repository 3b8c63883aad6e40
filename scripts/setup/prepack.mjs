/**
 * Before `npm pack` and `npm publish`: dist/ from these sources, and the native addon for machines like this one. What a tarball
 * has for others they build themselves, or do without.
 */
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { buildLibrary, buildNative } from './node.mjs';
import { ROOT, SetupError, withLock } from './shared.mjs';

const PREBUILT = join(ROOT, 'native', 'prebuilt');

try {
  withLock(() => {
    buildLibrary();
    rmSync(PREBUILT, { recursive: true, force: true });
    if (!buildNative()) throw new SetupError('the native addon was not built', 'Install a C++ compiler: packages have the addon inside.');
    const folder = join(PREBUILT, `${process.platform}-${process.arch}`);
    mkdirSync(folder, { recursive: true });
    copyFileSync(join(ROOT, 'native', 'build', 'fpdt.node'), join(folder, 'fpdt.node'));
  });
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  process.stderr.write(`error: ${error.message}\nhint: ${error.hint}\n`);
  process.exitCode = 1;
}
