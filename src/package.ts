/** Where this package is and which version it has, wherever in it this file ends up when it is bundled. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const MANIFEST = 'package.json';

/** The folder that holds package.json, `python/` and, after setup, `.venv/`. */
export const PACKAGE_ROOT = rootAbove(dirname(fileURLToPath(import.meta.url)));

/** The Python package has the same. */
export const VERSION = (JSON.parse(readFileSync(join(PACKAGE_ROOT, MANIFEST), 'utf8')) as { readonly version: string }).version;

function rootAbove(folder: string): string {
  if (existsSync(join(folder, MANIFEST))) return folder;
  if (dirname(folder) === folder) throw new Error(`no ${MANIFEST} above ${fileURLToPath(import.meta.url)}`);
  return rootAbove(dirname(folder));
}
