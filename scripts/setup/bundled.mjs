/**
 * `node scripts/setup/bundled.mjs FILE [ARG...]`: runs a TypeScript program bundled as the library is. Translated file by file as it is
 * loaded, every function keeps its name by a call, and to choose a strategy takes half as long again.
 */
import { statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { buildSync } from 'esbuild';
import { ROOT, SHARED } from './bundling.mjs';

const [, , file, ...args] = process.argv;
if (file === undefined || statSync(file, { throwIfNoEntry: false })?.isFile() !== true) {
  const found = file === undefined ? '' : `error: there is no file ${file}\n`;
  process.stderr.write(`${found}usage: node scripts/setup/bundled.mjs FILE [ARG...]\n`);
  process.exit(2);
}
// Below the package, so that its dependencies are found. It goes as soon as it is loaded, so that none is left of a process that is killed.
const outfile = join(ROOT, 'node_modules', '.cache', 'fpdt', `${basename(file, '.ts')}-${process.pid}.mjs`);
const banner = { js: "import { rmSync as removeBundle } from 'node:fs'; removeBundle(new URL(import.meta.url));" };
buildSync({ ...SHARED, entryPoints: [resolve(file)], outfile, format: 'esm', sourcemap: 'inline', banner });
process.argv = [process.execPath, file, ...args];
await import(pathToFileURL(outfile).href);
