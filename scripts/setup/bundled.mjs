/**
 * `node scripts/setup/bundled.mjs FILE [ARG...]`: runs a TypeScript program bundled as the library is. Translated file by file as it is
 * loaded, every function keeps its name by a call, and to choose a strategy takes half as long again.
 */
import { rmSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { buildSync } from 'esbuild';
import { ROOT, SHARED } from './bundling.mjs';

const [, , file, ...args] = process.argv;
if (file === undefined) {
  process.stderr.write('usage: node scripts/setup/bundled.mjs FILE [ARG...]\n');
  process.exit(2);
}
// Below the package, so that its dependencies are found; of this process alone.
const outfile = join(ROOT, 'node_modules', '.cache', 'fpdt', `${basename(file, '.ts')}-${process.pid}.mjs`);
buildSync({ ...SHARED, entryPoints: [relative(ROOT, file)], outfile, format: 'esm', sourcemap: 'inline' });
process.on('exit', () => rmSync(outfile, { force: true }));
process.argv = [process.execPath, file, ...args];
await import(pathToFileURL(outfile).href);
